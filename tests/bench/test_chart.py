import xml.etree.ElementTree as ET
from datetime import UTC, datetime

from bench.chart import COLOURS, draw
from bench.report import Figure, Report, Result, figure, of_repeats
from tests.bench.test_report import MACHINE

SVG = "{http://www.w3.org/2000/svg}"


def chart(benchmark: str, *figures: Figure) -> ET.Element:
    result = Result(benchmark=benchmark, how="by hand", settings={"clients": 64}, seconds=1.0, figures=figures)
    report = Report(
        command="python -m bench",
        began_at=datetime.now(UTC),
        seconds=2.0,
        machine=MACHINE,
        loop_ms=(4.0, 5.5, 4.5),
        results=(result,),
    )
    return ET.fromstring(draw(report))  # noqa: S314 - made above


def texts(drawn: ET.Element) -> list[str]:
    return [str(each.text) for each in drawn.iter(f"{SVG}text")]


def widths(drawn: ET.Element, colour: str) -> list[float]:
    bars = [each for each in drawn.iter(f"{SVG}rect") if each.get("fill") == colour and each.get("height") == "18"]
    return [float(each.attrib["width"]) for each in bars]


def test_bars_of_both_sides_are_as_long_as_their_cpu() -> None:
    cpu = {"nodrop": (2.0, 1.0, 1.0, 0.0), "usual": (10.0, 8.0, 2.0, 0.0)}
    names = ("api", "worker", "postgres", "redis")
    figures = [
        figure(f"{side}_cpu_{name}", value, "CPU ms/order", 9)
        for side, values in cpu.items()
        for name, value in zip(("ours", *names), (sum(values), *values), strict=True)
    ]
    drawn = chart("usual", *figures)
    assert {"nodrop", "usual", "4", "20", *names} <= set(texts(drawn))
    for colour, ours, theirs in zip(COLOURS, *cpu.values(), strict=True):
        nodrop, usual = widths(drawn, colour)
        assert usual * ours == nodrop * theirs or abs(usual * ours - nodrop * theirs) < 1.0


def test_logarithmic_bars_grow_by_as_much_with_every_tenfold() -> None:
    rates = {"celery": 100.0, "arq": 1000.0, "lane": 10_000.0}
    drawn = chart("queue", *(figure(f"{name}_jobs_per_cpu_s", rate, "jobs/CPU s", 9) for name, rate in rates.items()))
    first, second, third = widths(drawn, COLOURS[0])
    assert abs((second - first) - (third - second)) < 0.2
    assert "10,000" in texts(drawn)


def test_spread_of_repeats_stands_behind_the_bar() -> None:
    drawn = chart("growth", of_repeats("order_never_1000", [2.0, 3.0, 4.0], "CPU ms", 100))
    assert "3 (2 to 4)" in texts(drawn)
    assert "never 1000" in texts(drawn)


def test_names_are_escaped_and_other_benchmarks_are_left_out() -> None:
    drawn = chart("queue", figure("<arq>_jobs_per_cpu_s", 1.0, "jobs/CPU s", 9))
    assert "<arq>" in texts(drawn)
    assert not widths(chart("sweep", figure("idle_p50", 1.0, "ms", 9)), COLOURS[0])
