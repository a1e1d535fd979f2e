"""The list of what a deployment installs, and the comparison with known vulnerabilities."""

import json
import os
import re
import runpy
import subprocess
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.servers import ROOT

SBOM = runpy.run_path(str(ROOT / "scripts/sbom.py"))
LOCK = (ROOT / "requirements.txt").read_text()
PROJECT = {"name": "nodrop", "version": "1"}


def described(lock: str = LOCK) -> dict[str, Any]:
    document: dict[str, Any] = SBOM["describe"](SBOM["read_lock"](lock), PROJECT)
    return document


def test_every_package_of_the_lock_is_listed_with_all_its_hashes() -> None:
    document = described()
    listed = {part["name"]: part["version"] for part in document["components"]}
    assert listed == dict(re.findall(r"^([a-z0-9-]+)(?:\[.*\])?==(\S+)", LOCK, re.MULTILINE))
    hashes = [each["content"] for part in document["components"] for each in part["hashes"]]
    assert sorted(hashes) == sorted(re.findall(r"sha256:([0-9a-f]{64})", LOCK))
    assert all(part["purl"] == f"pkg:pypi/{part['name']}@{part['version']}" for part in document["components"])


def test_the_list_has_the_form_of_cyclonedx() -> None:
    document = described()
    assert (document["bomFormat"], document["specVersion"], document["version"]) == ("CycloneDX", "1.6", 1)
    assert UUID(document["serialNumber"].removeprefix("urn:uuid:")).version == 5
    refs = {part["bom-ref"] for part in document["components"]} | {"nodrop"}
    assert {row["ref"] for row in document["dependencies"]} == refs
    assert {ref for row in document["dependencies"] for ref in row["dependsOn"]} == refs - {"nodrop"}
    by_ref = {row["ref"]: row["dependsOn"] for row in document["dependencies"]}
    assert any(ref.startswith("pkg:pypi/asyncpg@") for ref in by_ref["nodrop"])


def test_the_list_is_the_same_for_the_same_lock_and_another_for_another() -> None:
    assert json.dumps(described()) == json.dumps(described())
    other = LOCK.replace("asyncpg==", "asyncpg==9")
    assert described(other)["serialNumber"] != described()["serialNumber"]


@pytest.mark.parametrize("line", ["asyncpg>=1", "-e .", "asyncpg==1 \\\n    what is this"])
def test_a_lock_that_cannot_be_read_is_no_list(line: str) -> None:
    with pytest.raises(ValueError, match=r"no package|neither a hash"):
        described(line)


@pytest.mark.servers
@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        ("exit 0", 0, "requirements-dev.txt: no known vulnerabilities"),
        ('while [ "$1" != --output ]; do shift; done; echo "asyncpg 1 CVE-1" >"$2"; exit 1', 1, "asyncpg 1 CVE-1"),
        ("echo no connection >&2; exit 1", 0, "not audited: pip-audit could not compare requirements.txt"),
        (None, 0, "not audited: there is no pip-audit"),
    ],
)
def test_an_audit_says_what_was_found_or_that_it_could_not_be(
    tmp_path: Path, body: str | None, code: int, says: str
) -> None:
    program = tmp_path / "pip-audit"
    if body is not None:
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
    environ = os.environ | {"PIP_AUDIT": str(program)}
    command = ["sh", "scripts/audit.sh"]
    ran = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == code
    assert ran.stdout.splitlines()[-1].startswith(says)
