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


# -- rules that fire and end -------------------------------------------------------------------------------------------

CALLS = 'nodrop_channel_calls_total{account="main",kind="query",result="%s",instance="%s"}'
SLOW = 'nodrop_channel_call_seconds_bucket{account="main",kind="query",le="%s",instance="w1"}'
DELIVERED = 'nodrop_deliveries_total{result="%s",instance="w1"}'
ANSWERED = 'nodrop_http_requests_total{route="/v1/orders",status="%s",instance="a1"}'

LONG_MIN = 60
"""Minutes for which each condition holds, and then does not."""

FIRED: dict[str, tuple[dict[str, str], dict[str, tuple[str, str, str]]]] = {
    "NodropWorkersGone": ({}, {'nodrop_workers{instance="a1"}': ("2", "0", "2")}),
    "NodropWorkOverdue": (
        {"kind": "pending"},
        {f'nodrop_oldest_due_seconds{{kind="pending",instance="{each}"}}': ("3", "121", "3") for each in ("a1", "a2")},
    ),
    "NodropCallbacksSilent": (
        {"rule": "callbacks_silent"},
        {'nodrop_alerts_open{rule="callbacks_silent",instance="a1"}': ("0", "1", "0")},
    ),
    "NodropInvariantBroken": (
        {"rule": "invariant"},
        {'nodrop_alerts_open{rule="invariant",instance="a1"}': ("0", "2", "0")},
    ),
    "NodropBreakerOpen": (
        {"account": "main", "kind": "query"},
        {'nodrop_breaker_open{account="main",kind="query",instance="w1"}': ("0", "1", "0")},
    ),
    "NodropChannelErrors": (
        {"account": "main", "kind": "query"},
        {CALLS % ("unanswered", "w1"): ("+1", "+30", "+1"), CALLS % ("answered", "w2"): ("+99", "+70", "+99")},
    ),
    "NodropChannelSlow": (
        {"account": "main", "kind": "query"},
        {
            SLOW % "1": ("+60", "+30", "+60"),
            SLOW % "10": ("+60", "+60", "+60"),
            SLOW % "+Inf": ("+60", "+60", "+60"),
        },
    ),
    "NodropRateUsedUp": (
        {"account": "main"},
        {
            'nodrop_channel_rate_used{account="main",instance="a1"}': ("5", "46", "5"),
            'nodrop_channel_rate{account="main",instance="a1"}': ("50", "50", "50"),
        },
    ),
    "NodropDeadLetters": ({}, {'nodrop_dead_letters{instance="a1"}': ("0", "3", "0")}),
    "NodropDeliveriesFail": (
        {},
        {DELIVERED % "failed": ("+0", "+60", "+0"), DELIVERED % "delivered": ("+60", "+20", "+60")},
    ),
    "NodropCaseOpened": (
        {"reason": "paid_late"},
        {'nodrop_cases_open{reason="paid_late",instance="a1"}': ("0", "1", "0")},
    ),
    "NodropNotReconciled": (
        {"account": "main"},
        {'nodrop_reconciled_age_seconds{account="main",instance="a1"}': ("80000", "108001", "10")},
    ),
    "NodropStatementIncomplete": (
        {"account": "main"},
        {'nodrop_statements_incomplete{account="main",instance="a1"}': ("0", "1", "0")},
    ),
    "NodropClockWrong": ({"instance": "w1"}, {'nodrop_clock_skew_seconds{instance="w1"}': ("1", "-3", "1")}),
    "NodropClockContradicted": ({}, {'nodrop_clock_contradicted{instance="w1"}': ("0", "1", "0")}),
    "NodropJobsFail": (
        {"lane": "queries"},
        {'nodrop_jobs_total{lane="queries",result="failed",instance="w1"}': ("+0", "+1", "+0")},
    ),
    "NodropRequestsFail": (
        {"route": "/v1/orders"},
        {ANSWERED % "500": ("+0", "+10", "+0"), ANSWERED % "201": ("+60", "+60", "+60")},
    ),
    "NodropAlertsNotHeard": ({}, {'nodrop_alert_messages_unsent{instance="a1"}': ("0", "1", "0")}),
}
"""Of each rule: the labels of its alert, and series with their values before, while and after its condition holds; one
with a sign is a counter's growth in a minute.
"""


def values_of(phases: tuple[str, str, str]) -> str:
    """An hour of each phase, in promtool's notation: `3x59`, or a counter that goes on from where it was."""
    if not phases[0].startswith("+"):
        return " ".join(f"{value}x{LONG_MIN - 1}" for value in phases)
    total, shown = 0, []
    for growth in phases:
        shown.append(f"{total}+{int(growth)}x{LONG_MIN - 1}")
        total += int(growth) * LONG_MIN
    return " ".join(shown)


def fires_and_ends(alert: str) -> dict[str, Any]:
    """A test of promtool: silent for an hour, told at the end of the second, silent at the end of the third."""
    labels, series = FIRED[alert]
    severity = re.search(rf"- alert: {alert}\n(?:.*\n)*?        labels: {{severity: (\w+)}}", RULES.read_text())
    assert severity is not None
    raised = [{"exp_labels": {"severity": severity[1], **labels}}]
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values_of(phases)} for name, phases in series.items()],
        "alert_rule_test": [
            {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": alerts}
            for minute, alerts in ((LONG_MIN - 1, []), (2 * LONG_MIN - 1, raised), (3 * LONG_MIN - 1, []))
        ],
    }


def test_every_rule_has_series_with_which_it_fires() -> None:
    assert [*FIRED] == _ALERT.findall(RULES.read_text())


@pytest.mark.servers
def test_each_rule_fires_while_its_condition_holds_and_then_ends(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool here; on Debian: apt-get install prometheus")
    bare = re.sub(r"^        annotations:\n(?:          .*\n)+", "", RULES.read_text(), flags=re.MULTILINE)
    (tmp_path / RULES.name).write_text(bare)  # the texts of annotations are not compared
    tests = {"rule_files": [RULES.name], "evaluation_interval": "1m", "tests": [*map(fires_and_ends, FIRED)]}
    (tmp_path / "tests.yaml").write_text(json.dumps(tests))
    ran = subprocess.run(
        (promtool, "test", "rules", "tests.yaml"), cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "SUCCESS" in ran.stdout
