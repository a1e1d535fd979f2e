"""Print what a deployment installs, as CycloneDX 1.6 in JSON: from requirements.txt alone, the same for the same lock.

There is no time in it, and its serial number is made of its content. The hashes of a package are those of all its files
that the lock admits.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple
from uuid import NAMESPACE_URL, uuid5

ROOT = Path(__file__).parent.parent

_PINNED = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)(?:\s*;\s*([^\\]+?))?\s*\\?")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_VIA = re.compile(r"#\s+(?:via\s+)?([A-Za-z0-9._-]+)(?: \(pyproject\.toml\))?")


class Package(NamedTuple):
    """A package of the lock. `wanted_by` are the packages that depend on it."""

    name: str
    version: str
    marker: str
    hashes: list[str]
    wanted_by: list[str]

    @property
    def purl(self) -> str:
        return f"pkg:pypi/{self.name}@{self.version}"


def read_lock(text: str) -> list[Package]:
    """The packages of a lock that `make lock` has written, in its order.

    Raises:
        ValueError: a line that is neither a package, nor a hash, nor who wants it.
    """
    packages: list[Package] = []
    for line in filter(str.strip, text.splitlines()):
        if not line.startswith(" "):
            match = _PINNED.fullmatch(line)
            if match is None:
                raise ValueError(f"no package with its version: {line}")
            name = re.sub(r"[-_.]+", "-", match[1]).lower()
            packages.append(Package(name, match[2], (match[3] or "").strip(), [], []))
        elif (match := _HASH.search(line)) is not None:
            packages[-1].hashes.append(match[1])
        elif line.strip() != "# via":
            match = _VIA.fullmatch(line.strip())
            if match is None:
                raise ValueError(f"neither a hash nor a package that wants it: {line}")
            packages[-1].wanted_by.append(match[1])
    return packages


def describe(packages: list[Package], project: dict[str, Any]) -> dict[str, Any]:
    """The document. `project` is the table of pyproject.toml."""
    root = {
        "type": "application",
        "bom-ref": project["name"],
        "name": project["name"],
        "version": project["version"],
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }
    refs = {project["name"]: project["name"]} | {package.name: package.purl for package in packages}
    wants: dict[str, list[str]] = {ref: [] for ref in refs.values()}
    for package in packages:
        for name in package.wanted_by:
            wants[refs[name]].append(package.purl)
    content = {
        "metadata": {"component": root},
        "components": [_component(package) for package in packages],
        "dependencies": [{"ref": ref, "dependsOn": sorted(names)} for ref, names in sorted(wants.items())],
    }
    serial = uuid5(NAMESPACE_URL, json.dumps(content, sort_keys=True))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        **content,
    }


def _component(package: Package) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": package.purl,
        "name": package.name,
        "version": package.version,
        "purl": package.purl,
        "hashes": [{"alg": "SHA-256", "content": each} for each in package.hashes],
    }
    if package.marker:
        component["properties"] = [{"name": "nodrop:marker", "value": package.marker}]
    return component


def main() -> None:
    lock = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "requirements.txt"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    print(json.dumps(describe(read_lock(lock.read_text("utf-8")), project), indent=2))


if __name__ == "__main__":
    main()
