from pathlib import Path

import pytest

from tests.platform.deploy import Failed, copy_checkout, development_only, exit_codes, imported, not_locked, run

LOCK = """\
anyio==4.16.0 \\
    --hash=sha256:00
    # via httpx
async-timeout==5.0.1 ; python_full_version < '3.11.3' \\
    --hash=sha256:11
Typing_Extensions==4.16.0 \\
    --hash=sha256:22
"""
OUTPUT = """\
import time:       100 |        100 | honcho
05:12:04 release.1 | applied 0001_orders.sql
05:12:07 system   | web.1 started (pid=14576)
05:12:07 web.1    | import time:       223 |        223 |   encodings.utf_8
05:12:07 worker.1 | import time:      1011 |       4023 | worker.lane
05:12:10 system   | worker.1 stopped (rc=-15)
05:12:12 system   | web.1 stopped (rc=0)
"""


def test_package_beside_the_lock_is_named() -> None:
    assert not_locked(["anyio", "typing-extensions", "pip", "setuptools"], LOCK) == []
    assert not_locked(["anyio", "pytest", "Async.Timeout"], LOCK) == ["pytest"]


def test_exit_codes_are_those_that_honcho_tells() -> None:
    assert exit_codes(OUTPUT) == {"worker": -15, "web": 0}


def test_imports_are_those_of_the_processes_and_not_of_honcho() -> None:
    assert imported(OUTPUT) == {"encodings.utf_8", "worker.lane"}


def test_modules_for_development_are_found_by_whole_names() -> None:
    modules = ["cli.keys", "demo.embedded.postgres", "simulator", "benchmark", "api.http.asgi", "tests.servers"]
    assert development_only(modules) == ["demo.embedded.postgres", "simulator", "tests.servers"]


def test_copy_holds_what_git_would_commit(tmp_path: Path) -> None:
    place = copy_checkout(tmp_path)
    assert (place / "Procfile").read_text().startswith("release: ")
    assert (place / "api" / "pages" / "static").is_dir()
    assert not (place / ".venv").exists()
    assert not list(place.rglob("__pycache__"))


def test_failure_is_a_sentence_with_the_end_of_the_complaint() -> None:
    with pytest.raises(Failed, match=r"it could not be done:\n.+"):
        run(["sh", "--no-such-option"], "it could not be done", env={})
    with pytest.raises(Failed, match=r"it could not be done \(FileNotFoundError\)"):
        run(["/no/such/program"], "it could not be done", env={})
