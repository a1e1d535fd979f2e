"""Commands that containers need beside the processes. They need no shell and nothing that is not in the image.

python scripts/container.py secrets        make the secrets of compose.yaml that are not there yet
python scripts/container.py run COMMAND…   become the command, with these secrets in its environment
python scripts/container.py key            print an API key, once: when there is none
python scripts/container.py alive          exit with 0 when the web process on PORT answers
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from secrets import token_hex

SECRETS = Path(os.environ.get("SECRETS", "/secrets"))
VARIABLES, DATABASE_PASSWORD, REDIS_CONF = SECRETS / "nodrop/env", SECRETS / "postgres/password", SECRETS / "redis/conf"
"""Each is in a volume of its own, and a container has only the volume that it needs."""

ALIVE_S = 3.0
REQUIREPASS = "requirepass "


def make_secrets() -> None:
    """Keep what is there. The addresses are written anew, so that they always fit the passwords."""
    password = _kept(DATABASE_PASSWORD) or token_hex(24)
    redis_conf = _kept(REDIS_CONF) or "\n".join(
        (f"{REQUIREPASS}{token_hex(24)}", "maxmemory-policy noeviction", "appendonly yes", "dir /data", "")
    )
    redis_password = next(
        line.removeprefix(REQUIREPASS) for line in redis_conf.splitlines() if line.startswith(REQUIREPASS)
    )
    variables = _read_variables()
    for name, kind in (("NODROP_MASTER_KEYS", "master"), ("NOTIFY_SECRETS", "notify")):
        if name not in variables:
            variables[name] = _cli("keys", kind)
    variables["DATABASE_URL"] = f"postgres://nodrop:{password}@postgres:5432/nodrop"
    variables["REDIS_URL"] = f"redis://:{redis_password}@redis:6379/0"
    _write(DATABASE_PASSWORD, password)
    _write(REDIS_CONF, redis_conf)
    _write(VARIABLES, "".join(f"{name}={value}\n" for name, value in sorted(variables.items())))


def run(command: list[str]) -> None:
    """Replace this process, so that signals reach the command. What the container was given wins."""
    environment = _read_variables() | os.environ
    os.execvpe(command[0], command, environment)  # noqa: S606 - the command of compose.yaml


def print_key() -> None:
    """Print a key for the merchant's backend, unless one was made before."""
    environment = _read_variables() | os.environ
    if json.loads(_cli("keys", "list", "--json", environment=environment)):
        print("There is an API key already; `docker compose run --rm cli keys create NAME` makes another one.")
    else:
        key = _cli("keys", "create", "example", "--scope", "orders", "--scope", "read", environment=environment)
        print(f"API key for your backend (scopes orders and read), shown this once: {key}")


def check_alive() -> None:
    """End with 0 if the web process answers."""
    web = HTTPConnection("127.0.0.1", int(os.environ.get("PORT") or 8000), timeout=ALIVE_S)
    web.request("GET", "/healthz")
    sys.exit(web.getresponse().status != HTTPStatus.OK)


def _read_variables() -> dict[str, str]:
    lines = _kept(VARIABLES).splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def _kept(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def _write(file: Path, content: str) -> None:
    """Write all or nothing. Who has the volume may read it: the containers' users differ."""
    if _kept(file) != content:
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".new")
        unfinished.write_text(content)
        unfinished.chmod(0o444)
        unfinished.replace(file)


def _cli(*arguments: str, environment: Mapping[str, str] = os.environ) -> str:
    argv = [sys.executable, "-m", "cli", *arguments]
    return subprocess.run(argv, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def main() -> None:
    match sys.argv[1:]:
        case ["secrets"]:
            make_secrets()
        case ["run", _, *_]:
            run(sys.argv[2:])
        case ["key"]:
            print_key()
        case ["alive"]:
            check_alive()
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
