"""Forked processes behave as started ones."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from multiprocessing import Pipe
from pathlib import Path
from signal import SIGKILL, SIGSTOP, SIGTERM

import pytest

from demo.embedded.child import is_alive
from demo.service import Service
from tests.preloaded import ForkedChild, Preloaded, Start
from tests.servers import Process, eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nothing is forked elsewhere")


@pytest.fixture
def _forked(forking: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    with forking():
        yield


def merchant(log: Path) -> Process:
    return Process("simulator", "merchant", "--port", "0", env={"MERCHANT_SECRETS": "whsec_c2VjcmV0"}, log=log)


@pytest.mark.usefixtures("_forked")
async def test_fork_runs_its_module_with_its_arguments_environment_and_log(tmp_path: Path) -> None:
    async with merchant(tmp_path / "log") as process:
        assert isinstance(process._child, ForkedChild)
        await process.wait_for_line("merchant_started")
        assert os.getsid(process.pid) == process.pid, "in a session of its own"
        assert await process.terminate() == 0
        assert "merchant_stopp" in process.output()


@pytest.mark.usefixtures("_forked")
async def test_fork_has_nothing_of_the_environment_of_pytest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://127.0.0.1:1/none")
    async with Process("worker", env={}, log=tmp_path / "log") as process:
        assert await process.wait() == 2, "the exit code of a wrong configuration"
        assert "DATABASE_URL is not set" in process.output()


@pytest.mark.usefixtures("_forked")
async def test_killed_fork_is_gone_on_return_even_when_it_is_stopped(tmp_path: Path) -> None:
    async with merchant(tmp_path / "log") as process:
        process.send(SIGSTOP)
        process.kill()
        assert process.exit_code == -SIGKILL
        assert not is_alive(process.pid)
        process.send(SIGTERM)  # to nobody


def test_signal_to_a_fork_whose_end_is_not_reported_yet_reaches_nobody(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    keeper, other_end = Pipe()
    other_end.send(ended.pid)
    child = ForkedChild(keeper, Start("worker", (), {}, str(tmp_path / "log")))
    child.send(SIGKILL)
    assert child.exit_code is None
    other_end.recv()
    other_end.send(SIGKILL)
    assert child.exit_code == -SIGKILL


@pytest.mark.usefixtures("_forked")
async def test_services_of_a_stack_are_forked_and_started_again(tmp_path: Path) -> None:
    service = Service("worker", "worker", env={}, log=tmp_path / "log")
    for _ in range(2):
        await service.start()
        assert isinstance(service._child, ForkedChild)
        await service.kill()
        assert service.pid is None


@pytest.mark.usefixtures("_forked")
async def test_environment_for_python_and_other_modules_start_a_new_python(tmp_path: Path) -> None:
    for module, env in (("worker", {"PYTHONOPTIMIZE": "2"}), ("timeit", {})):
        async with Process(module, env=env, log=tmp_path / "log") as process:
            assert not isinstance(process._child, ForkedChild)


async def test_forks_end_with_the_process_that_forked_them(server_directory: Path, tmp_path: Path) -> None:
    server_directory.mkdir()
    preloaded = Preloaded(server_directory)
    with preloaded.replacing_starts():
        process = merchant(tmp_path / "log")
        process.start()
    preloaded.stop()
    await eventually(lambda: not is_alive(process.pid))
