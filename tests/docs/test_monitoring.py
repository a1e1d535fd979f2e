"""The rules for Prometheus and the dashboard for Grafana read metrics that exist, with labels that these have."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

from api import store_metrics  # noqa: F401 - registers its metrics
from api.http import metrics  # noqa: F401 - as above
from tests.docs.promql import Parser
from tests.servers import ROOT

RULES = ROOT / "docs/operations/nodrop.rules.yaml"
DASHBOARD = ROOT / "docs/operations/grafana.json"
OF_SCRAPES = {"instance", "job"}
_EXPR = re.compile(r"^        expr: (?:\|\n((?:          .*\n)+)|(.*)\n)", re.MULTILINE)
_ALERT = re.compile(r"^      - alert: (\w+)$", re.MULTILINE)


def exposed() -> dict[str, tuple[set[str], bool]]:
    """Every series by its name: its labels, and whether it is a counter."""
    found = {}
    for metric in REGISTRY._names_to_collectors.values():
        if not isinstance(metric, MetricWrapperBase):  # of the process and of Python
            continue
        name, kind, labels = metric._name, metric._type, set(metric._labelnames)
        match kind:
            case "counter":
                found[f"{name}_total"] = (labels, True)
            case "histogram":
                found[f"{name}_bucket"] = (labels | {"le"}, True)
                found |= dict.fromkeys((f"{name}_sum", f"{name}_count"), (labels, True))
            case "gauge":
                found[name] = (labels, False)
    return {name: series for name, series in found.items() if name.startswith("nodrop_")}


def rules() -> list[str]:
    return [(block or line).strip() for block, line in _EXPR.findall(RULES.read_text())]


def panels() -> Iterator[dict[str, Any]]:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        if panel["type"] != "row":
            yield panel


EXPRESSIONS = [*rules(), *(target["expr"] for panel in panels() for target in panel["targets"])]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_reads_series_that_exist_by_labels_that_they_have(expression: str) -> None:
    known = exposed()
    series = Parser(expression).parse()
    assert series
    for one in series:
        assert one.metric in known, one.metric
        labels, is_counter = known[one.metric]
        assert one.labels <= labels | OF_SCRAPES, one
        assert one.has_range is is_counter, f"{one.metric}: a counter is read by its rate, and a gauge is not"


@pytest.mark.parametrize(
    "wrong",
    [
        "max(nodrop_workers",
        "max(nodrop_workers))",
        "nodrop_workers >",
        "sum by account (nodrop_workers)",
        "rate(nodrop_jobs_total)",
        "nodrop_jobs_total[5m]",
        'nodrop_open{kind="x}',
        "nodrop_open{kind}",
        "1 ~ 2",
    ],
)
def test_the_parser_of_these_tests_refuses_what_is_no_expression(wrong: str) -> None:
    with pytest.raises(SyntaxError):
        Parser(wrong).parse()


def test_each_rule_has_a_name_of_its_own_an_expression_and_a_summary() -> None:
    names = _ALERT.findall(RULES.read_text())
    assert len(set(names)) == len(names) == len(rules()) > 10
    assert RULES.read_text().count("          summary: ") == len(names)
    assert set(re.findall(r"severity: (\w+)", RULES.read_text())) == {"page", "ticket"}


@pytest.mark.parametrize("panel", list(panels()), ids=lambda panel: panel["title"])
def test_the_legend_of_a_panel_names_labels_that_its_series_keep(panel: dict[str, Any]) -> None:
    assert panel["description"]
    for target in panel["targets"]:
        kept = {label for one in Parser(target["expr"]).parse() for label in one.labels}
        wanted = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert wanted <= kept | OF_SCRAPES


def test_panels_have_ids_and_places_of_their_own() -> None:
    every = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    taken: set[tuple[int, int]] = set()
    for panel in every:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


@pytest.mark.servers
def test_promtool_takes_the_rules() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool here; on Debian: apt-get install prometheus")
    ran = subprocess.run(
        (promtool, "check", "rules", str(RULES)), capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{len(rules())} rules found" in ran.stdout


@pytest.mark.servers
def test_promtool_takes_the_expressions_of_the_dashboard(tmp_path: Path) -> None:
    """As recording rules."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool here; on Debian: apt-get install prometheus")
    expressions = [target["expr"] for panel in panels() for target in panel["targets"]]
    listed = [{"record": f"nodrop:panel:{number}", "expr": one} for number, one in enumerate(expressions)]
    path = tmp_path / "panels.yaml"
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": listed}]}))  # JSON is YAML
    ran = subprocess.run(
        (promtool, "check", "rules", str(path)), capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
