import os
import subprocess
import sys
import time

import pytest

from bench.cpu import cpu_seconds

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")

BURN = "import time\nwhile time.process_time() < 0.2: pass"


def test_cpu_of_this_process_grows_with_its_work() -> None:
    before = cpu_seconds(os.getpid())
    ends_at = time.process_time() + 0.1
    while time.process_time() < ends_at:
        pass
    assert cpu_seconds(os.getpid()) - before >= 0.05


def test_child_that_ended_still_counts() -> None:
    """A backend of Postgres ends with its connection during a measurement."""
    before = cpu_seconds(os.getpid())
    subprocess.run([sys.executable, "-I", "-S", "-c", BURN], check=True, timeout=120)
    assert cpu_seconds(os.getpid()) - before >= 0.15


def test_ended_process_has_used_nothing() -> None:
    assert cpu_seconds(2**22 + 1) == 0.0
