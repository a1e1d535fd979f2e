from pathlib import Path

from bench.counts import Counts, Logged, entries

LOG = """\
2026-11-26 12:00:00.000 UTC [7] LOG:  checkpoint starting: time
2026-11-26 12:00:01.000 UTC [8] LOG:  duration: 0.031 ms  bind __asyncpg_stmt_1__:
\tSELECT 1
\t  FROM orders
2026-11-26 12:00:01.000 UTC [8] DETAIL:  Parameters: $1 = 'LOG:  duration: 9 ms  execute x: y'
2026-11-26 12:00:01.001 UTC [8] LOG:  duration: 0.250 ms  execute __asyncpg_stmt_1__:
\tSELECT 1
\t  FROM orders
2026-11-26 12:00:01.002 UTC [9] LOG:  duration: 1.000 ms  execute <unnamed>: /* bench */ SELECT 2
2026-11-26 12:00:01.003 UTC [9] LOG:  duration: 2.500 ms  statement: COMMIT
"""


def test_log_has_the_steps_of_statements_without_the_benchmarks_own(tmp_path: Path) -> None:
    log = tmp_path / "postgres.log"
    log.write_text("an older line\n" + LOG)
    assert list(entries(log, len("an older line\n"))) == [
        Logged("bind", 0.031, "SELECT 1 FROM orders"),
        Logged("execute", 0.25, "SELECT 1 FROM orders"),
        Logged("statement", 2.5, "COMMIT"),
    ]


def test_what_an_idle_system_does_is_subtracted_for_as_long_as_the_work_took() -> None:
    spent = Counts(100.0, 50.0, 900.0, 120.0).minus(Counts(4.0, 1.0, 80.0, 10.0), 5.0)
    assert spent == (80.0, 45.0, 500.0, 70.0)
    assert {each.name: each.value for each in spent.figures(10)} == {
        "statements": 8.0,
        "writing_transactions": 4.5,
        "redis_commands": 50.0,
        "redis_round_trips": 7.0,
    }
