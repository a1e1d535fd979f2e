import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bench.sampled import Samples
from tests.servers import ROOT

MODULE = """
import os, signal, sys, time

def burn(seconds):
    ends_at = time.process_time() + seconds
    while time.process_time() < ends_at:
        pass

def before(): burn(0.2)

def work(): burn(0.3)

before()
os.kill(os.getpid(), signal.SIGUSR2)
work()
{end}
"""


@pytest.mark.skipif(sys.platform != "linux", reason="CPU time is sampled by ticks")
@pytest.mark.parametrize("end", ["sys.exit(3)", "os._exit(3)"])
def test_samples_show_the_function_that_used_cpu_since_they_began_anew(tmp_path: Path, end: str) -> None:
    (tmp_path / "burner.py").write_text(MODULE.format(end=end))
    output = tmp_path / "samples"
    command = (sys.executable, "-m", "bench.sampled", str(output), "burner")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, timeout=120, check=False)
    assert done.returncode == 3
    samples = msgspec.json.decode(output.read_bytes(), type=Samples)
    assert samples.count > 10
    by_function = {name.rpartition(":")[2]: count for name, count in samples.with_called.items()}
    assert by_function["work"] >= samples.count - 1
    assert "before" not in by_function
