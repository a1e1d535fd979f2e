"""The build configuration finds every package of the product, and the files that are read from beside its modules."""

import tomllib
from pathlib import Path

from setuptools import find_packages

ROOT = Path(__file__).parents[2]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
NOT_BUILT = {"tests", "scripts", "docs"}


def python_folders() -> set[str]:
    """Every folder of the checkout that is a package: no other tool's folder has an `__init__.py` at its top."""
    tops = [folder for folder in ROOT.iterdir() if (folder / "__init__.py").exists() and folder.name not in NOT_BUILT]
    files = [file for top in tops for file in top.rglob("*.py")]
    return {".".join(file.parent.relative_to(ROOT).parts) for file in files}


def test_every_package_is_found() -> None:
    """Also those in folders that lack an `__init__.py`: the finder passes them over."""
    found = set(find_packages(str(ROOT), **SETUPTOOLS["packages"]["find"]))
    assert found == python_folders()
    assert "core.lifecycle" in found


def test_every_file_that_is_read_beside_a_module_is_included() -> None:
    data = SETUPTOOLS["package-data"]
    included = {
        path
        for package, patterns in data.items()
        for pattern in patterns
        for path in ROOT.joinpath(*package.split(".")).glob(pattern if "**" not in pattern else pattern + "/*")
        if path.is_file() and path.suffix != ".md"
    }
    beside = {
        path
        for top in {package.partition(".")[0] for package in find_packages(str(ROOT), **SETUPTOOLS["packages"]["find"])}
        for path in (ROOT / top).rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc", ".md"}
    }
    assert beside == included
