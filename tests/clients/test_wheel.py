"""The client's wheel: built without a network, and used where nothing of this checkout is."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.servers import ROOT

SOURCE = ROOT / "clients" / "python"
PROJECT = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]

# `build_wheel` writes beside its sources, so it gets a copy.
BUILD = """
import os, shutil, sys
source, copy, wheels = sys.argv[1:]
shutil.copytree(source, copy, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
os.chdir(copy)
from setuptools import build_meta
print(build_meta.build_wheel(wheels))
"""
USE = """
import sys
sys.path.insert(0, sys.argv[1])
import nodrop_client
from nodrop_client.connection import USER_AGENT
assert nodrop_client.__file__.startswith(sys.argv[1]), nodrop_client.__file__
assert not {"api", "core", "msgspec", "standardwebhooks"} & sys.modules.keys()
with nodrop_client.Client("https://pay.example.com", "key"):
    print(USER_AGENT)
"""


def run(program: str, *arguments: str) -> str:
    argv = (sys.executable, "-I", "-c", program, *arguments)
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("wheel")
    name = run(BUILD, str(SOURCE), str(home / "source"), str(home)).splitlines()[-1]
    return home / name


@pytest.mark.servers
def test_the_wheel_has_the_package_its_types_and_its_licence(wheel: Path) -> None:
    assert wheel.name == f"nodrop_client-{PROJECT['version']}-py3-none-any.whl"
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = {f"nodrop_client/{path.name}" for path in (SOURCE / "nodrop_client").glob("*") if path.is_file()}
    assert packed == files
    assert "nodrop_client/py.typed" in packed


@pytest.mark.servers
def test_its_only_dependency_is_httpx(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    lines = archive.read(metadata).decode().splitlines()
    requires = [line for line in lines if line.startswith("Requires-Dist:")]
    assert requires == ["Requires-Dist: httpx<1,>=0.27"]


@pytest.mark.servers
def test_it_is_used_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    assert run(USE, str(tmp_path)).strip() == f"nodrop-client/{PROJECT['version']}"


def test_the_licence_is_the_same() -> None:
    assert (SOURCE / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
