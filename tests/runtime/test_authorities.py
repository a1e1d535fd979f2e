"""Processes without certificates of authorities end with a sentence that names the variable."""

import sys
from pathlib import Path

import pytest

from storage.sealing import new_master_key
from tests.servers import Process

NOWHERE = {
    "DATABASE_URL": "postgres://u:p@127.0.0.1:9/x",
    "REDIS_URL": "redis://127.0.0.1:9/0",
    "PUBLIC_URL": "http://127.0.0.1:1",
    "NOTIFY_SECRETS": "whsec_" + "A" * 44,
    "PORT": "0",
}
EMPTY, MISSING, NONE_AT_ALL = "a file without certificates", "no such file", "nothing of the system"


def authorities(case: str, directory: Path) -> dict[str, str]:
    nothing = directory / "authorities.pem"
    if case == EMPTY:
        nothing.touch()
    if case == NONE_AT_ALL:
        return {"SSL_CERT_FILE": "", "SSL_CERT_DIR": str(nothing)}
    return {"SSL_CERT_FILE": str(nothing)}


@pytest.mark.servers
@pytest.mark.parametrize("case", [EMPTY, MISSING, NONE_AT_ALL])
@pytest.mark.parametrize("argv", ["api", "worker", "cli orders refresh A-1 --reason tests"])
async def test_without_authorities_the_variable_is_named(argv: str, case: str, tmp_path: Path) -> None:
    if case == NONE_AT_ALL and sys.platform == "darwin":
        pytest.skip("no variable takes the authorities of this system away")
    env = NOWHERE | {"NODROP_MASTER_KEYS": new_master_key("first")} | authorities(case, tmp_path)
    async with Process(*argv.split(), env=env, log=tmp_path / "log") as process:
        code = await process.wait()
    assert code == 2
    assert "SSL_CERT_FILE: no certificate of an authority can be read there" in process.output()
    assert "Traceback" not in process.output()
