"""The files for containers and platforms: variables, commands and versions are ours, and the image's files run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from signal import SIGTERM

import msgspec
import pytest

from core.settings import Settings, read_settings
from demo.embedded import Child, free_port
from tests.platform.deploy import make_environment, run
from tests.servers import LIMIT_S, ROOT, eventually

SETTINGS = {field.encode_name for field in msgspec.structs.fields(Settings)}
PROCFILE = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = (ROOT / "compose.yaml").read_text()
CONTAINER = "scripts/container.py"


def section(text: str, *path: str) -> str:
    """The lines of a YAML file below these keys, in one of our own files: each level has two spaces more."""
    for depth, key in enumerate(path):
        found = re.search(rf"^{'  ' * depth}{key}:.*\n((?:{'  ' * (depth + 1)}.*\n|\n)*)", text, re.MULTILINE)
        assert found, path
        text = found[1]
    return text


def variables_of(name: str) -> dict[str, str]:
    """The variables that a file sets or asks for, with the values that it has."""
    text = (ROOT / name).read_text()
    if name == "app.json":
        entries: dict[str, dict[str, str]] = json.loads(text)["env"]
        return {key: entry.get("value", "") for key, entry in entries.items()}
    if name == "fly.toml":
        names = re.findall(r"\b([A-Z_]+)=…|\b([A-Z_]+)=https", text)
        return dict.fromkeys(map("".join, names), "") | dict[str, str](tomllib.loads(text)["env"])
    if name == "Dockerfile":
        block = re.search(r"^ENV ((?:.*\\\n)*.*)", text, re.MULTILINE)
        assert block
        return dict(re.findall(r"(\w+)=(\S+)", block[1]))
    if name == "compose.yaml":
        pairs = re.findall(r"^ +([A-Z_]+): (.*)$", section(text, "x-nodrop", "environment"), re.MULTILINE)
        return {key: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value).strip('"') for key, value in pairs}
    pairs = re.findall(r"- key: (\w+)\n +(?:value: (.*)|\w+)", text)
    return {key: value.strip('"') for key, value in pairs}


FILES = ("Dockerfile", "compose.yaml", "app.json", "fly.toml", "render.yaml")


@pytest.mark.parametrize("name", FILES)
def test_every_variable_is_a_setting_with_a_value_that_it_takes(name: str) -> None:
    variables = {key: value for key, value in variables_of(name).items() if not key.startswith("PYTHON")}
    variables.pop("PATH", None)
    assert len(variables) > 1
    assert variables.keys() <= SETTINGS
    read_settings({key: value for key, value in variables.items() if value})


@pytest.mark.parametrize("name", ["app.json", "fly.toml", "render.yaml"])
def test_a_platform_gets_every_variable_that_has_no_default(name: str) -> None:
    from_addons = {"DATABASE_URL", "REDIS_URL"} if name == "app.json" else set()
    needed = {"DATABASE_URL", "REDIS_URL", "PUBLIC_URL", "NODROP_MASTER_KEYS", "NOTIFY_SECRETS"}
    assert needed | {"DATABASE_TLS", "REDIS_TLS", "TRUSTED_PROXY_HOPS"} <= variables_of(name).keys() | from_addons


def test_the_files_start_what_the_procfile_starts() -> None:
    fly = tomllib.loads((ROOT / "fly.toml").read_text())
    assert fly["processes"] == {"web": PROCFILE["web"], "worker": PROCFILE["worker"]}
    assert fly["deploy"]["release_command"] == PROCFILE["release"]
    render = dict(re.findall(r"^    (\w+Command): (.*)$", (ROOT / "render.yaml").read_text(), re.MULTILINE))
    assert render["preDeployCommand"] == PROCFILE["release"]
    starts = re.findall(r"startCommand: (.*)", (ROOT / "render.yaml").read_text())
    assert starts == [PROCFILE["web"], PROCFILE["worker"]]
    heroku = json.loads((ROOT / "app.json").read_text())
    assert set(heroku["formation"]) == {"web", "worker"}
    for service, line in (("api", "web"), ("worker", "worker"), ("migrate", "release")):
        (command,) = re.findall(r"command: (\[.*\])", section(COMPOSE, "services", service))
        assert json.loads(command) == ["python", CONTAINER, "run", *PROCFILE[line].split()]
    assert json.loads(re.findall(r"^CMD (.*)$", DOCKERFILE, re.MULTILINE)[0]) == PROCFILE["web"].split()


def test_one_python_everywhere_that_the_project_takes() -> None:
    version = (ROOT / ".python-version").read_text().strip()
    assert re.fullmatch(r"3\.\d+", version)
    images = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert len(images) == 2
    assert set(images) == {f"python:{version}-slim-bookworm"}
    least = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=")
    assert [*map(int, version.split("."))] >= [*map(int, least.split("."))]


def test_the_image_runs_without_a_shell_and_without_root() -> None:
    for instruction in ("CMD", "ENTRYPOINT"):
        assert all(line.startswith("[") for line in re.findall(rf"^ *{instruction} (.*)$", DOCKERFILE, re.MULTILINE))
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", last, re.MULTILINE), (
        "by number: a cluster can tell that it is not root"
    )
    assert "STOPSIGNAL SIGTERM" in last
    assert "--require-hashes" in DOCKERFILE


def test_the_stores_of_compose_keep_what_they_were_given() -> None:
    postgres, redis = section(COMPOSE, "services", "postgres"), section(COMPOSE, "services", "redis")
    for setting in ("fsync=on", "synchronous_commit=on", "full_page_writes=on"):
        assert f'"{setting}"' in postgres
    volumes = re.findall(r"^  (\S+):$", section(COMPOSE, "volumes"), re.MULTILINE)
    assert {"postgres", "redis", "nodrop-secrets", "postgres-secrets", "redis-secrets"} == set(volumes)
    assert "- postgres:/var/lib/postgresql\n" in postgres
    assert "- redis:/data\n" in redis
    for service in (postgres, redis):
        assert "ports:" not in service
        assert re.findall(r"^ +networks:\n +- (\w+)\n(?! +- )", service, re.MULTILINE) == ["stores"]


def test_no_secret_is_in_the_files() -> None:
    for name in (*FILES, CONTAINER):
        assert not re.search(r"whsec_\w|ndk_\w|password[=:] *[\"']?\w|[A-Za-z0-9+/]{40}", (ROOT / name).read_text()), (
            name
        )


# -- the image's files -------------------------------------------------------------------------------------------------


def copy_context(place: Path) -> Path:
    """Copy as `COPY . .` does: .dockerignore here is a list of what is taken, and of what is left out of that."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    taken = [line.removeprefix("!") for line in lines if line.startswith("!")]
    left_out = [line.removeprefix("**/") for line in lines if line.startswith("**/")]
    assert len(taken) + len(left_out) == len(lines) - 1
    for name in taken:
        files = [ROOT / name] if (ROOT / name).is_file() else sorted((ROOT / name).rglob("*"))
        for file in files:
            path = file.relative_to(ROOT)
            if file.is_file() and not any(fnmatch(part, pattern) for part in path.parts for pattern in left_out):
                (place / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, place / path)
    return place


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return copy_context(tmp_path / "image")


@pytest.fixture
def environment(tmp_path: Path, database_url: str, redis_url: str) -> dict[str, str]:
    """A container's, with this test's stores in the place of those of compose.yaml."""
    port = str(free_port())
    given = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "HOST": "127.0.0.1", "PORT": port}
    of_image = {key: value for key, value in variables_of("Dockerfile").items() if key not in {"PATH", "PORT"}}
    of_compose = {key: value for key, value in variables_of("compose.yaml").items() if not key.endswith("_TLS")}
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    return {"PATH": path, "SECRETS": str(tmp_path / "secrets"), **of_image, **of_compose, **given}


def container(image: Path, environment: dict[str, str], *arguments: str) -> str:
    argv = ["python", CONTAINER, *arguments]
    return run(argv, f"{' '.join(argv)} failed", env=environment, cwd=image, timeout_s=LIMIT_S)


@pytest.mark.servers
@pytest.mark.slow
async def test_the_steps_of_compose_run(image: Path, environment: dict[str, str], tmp_path: Path) -> None:
    before = sorted(path.relative_to(image) for path in image.rglob("*"))
    container(image, environment, "secrets")
    container(image, environment, "run", "python", "-m", "cli", "migrate")
    first, second = container(image, environment, "key"), container(image, environment, "key")
    assert re.search(r"shown this once: \S{20,}\n", first)
    assert "already" in second
    assert not _is_alive(image, environment)
    with _processes(image, environment, tmp_path, "api", "worker") as processes:
        await eventually(lambda: _is_alive(image, environment))
        await eventually(lambda: "worker_started" in (tmp_path / "worker.log").read_text())
        for process in processes:
            process.send(SIGTERM)
        await eventually(lambda: None not in [process.exit_code for process in processes])
        assert [process.exit_code for process in processes] == [0, 0]
    assert sorted(path.relative_to(image) for path in image.rglob("*")) == before, "nothing was written"


@pytest.mark.servers
def test_secrets_are_made_once(image: Path, environment: dict[str, str]) -> None:
    files = [Path(environment["SECRETS"]) / name for name in ("nodrop/env", "postgres/password", "redis/conf")]
    container(image, environment, "secrets")
    made = [file.read_text() for file in files]
    container(image, environment, "secrets")
    assert [file.read_text() for file in files] == made
    assert all(password in made[0] for password in (made[1], made[2].splitlines()[0].removeprefix("requirepass ")))
    assert {line.partition("=")[0] for line in made[0].splitlines()} == {
        "DATABASE_URL", "REDIS_URL", "NODROP_MASTER_KEYS", "NOTIFY_SECRETS",
    }  # fmt: skip
    assert {"maxmemory-policy noeviction", "appendonly yes"} <= set(made[2].splitlines())


@pytest.mark.servers
def test_addresses_fit_passwords_that_were_lost(image: Path, environment: dict[str, str]) -> None:
    """The keys stay: with others no account could be opened."""
    secrets = Path(environment["SECRETS"])
    container(image, environment, "secrets")
    before = dict(line.split("=", 1) for line in (secrets / "nodrop/env").read_text().splitlines())
    (secrets / "postgres/password").unlink()
    container(image, environment, "secrets")
    after = dict(line.split("=", 1) for line in (secrets / "nodrop/env").read_text().splitlines())
    assert (secrets / "postgres/password").read_text() in after["DATABASE_URL"]
    assert {name for name in after if after[name] != before[name]} == {"DATABASE_URL"}


@pytest.mark.network
@pytest.mark.servers
@pytest.mark.slow
def test_the_lock_is_all_that_the_image_needs(image: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """The steps of the Dockerfile in a fresh environment: every module of the image can be imported."""
    commands = make_environment(tmp_path)
    environment["PATH"] = f"{commands}:/usr/bin:/bin"
    modules = sorted(
        ".".join(file.relative_to(image).with_suffix("").parts).removesuffix(".__init__")
        for file in image.rglob("*.py")
        if file.name != "__main__.py" and "scripts" not in file.parts
    )
    program = "import sys, importlib\nfor name in sys.argv[1:]: importlib.import_module(name)"
    run(["python", "-c", program, *modules], "a module is missing", env=environment, cwd=image, timeout_s=LIMIT_S)
    container(image, environment, "secrets")
    container(image, environment, "run", "python", "-m", "cli", "config", "check")


@contextmanager
def _processes(image: Path, environment: dict[str, str], logs: Path, *modules: str) -> Iterator[list[Child]]:
    """`run python -m …` of these modules; what still runs at the end is ended."""
    prefix = ["python", CONTAINER, "run", "python", "-m"]
    children = [Child([*prefix, module], log=logs / f"{module}.log", cwd=image, env=environment) for module in modules]
    try:
        yield children
    finally:
        for child in children:
            child.end(SIGTERM)


def _is_alive(image: Path, environment: dict[str, str]) -> bool:
    argv = ["python", CONTAINER, "alive"]
    return subprocess.run(argv, env=environment, cwd=image, capture_output=True, check=False).returncode == 0
