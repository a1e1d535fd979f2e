"""The module for shops' pages: its bytes, its addresses, and the origins that may read an order's state."""

import gzip
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from api.sdk import files, handlers
from core.settings import Settings
from tests.api.conftest import terms, token_of
from tests.api.driver import Client

SHOP = "https://shop.example.com"
EMBEDDING = (Path(__file__).parents[2] / "docs" / "embedding.md").read_text()


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, page_origins=SHOP)


def test_the_module_has_6_kb_and_no_dependency() -> None:
    assert len(gzip.compress(files.MODULE, 9)) <= 6 * 1024
    assert b"import " not in re.sub(rb"import\.meta|// [^\n]*|/\*\*[^\n]*", b"", files.MODULE)
    assert "dependencies" not in json.loads((files.FOLDER / "package.json").read_bytes())


def test_the_bytes_of_a_published_version_never_change() -> None:
    releases = json.loads((files.FOLDER.parent / "releases.json").read_bytes())
    served = {
        version: files.integrity(each[files.NAME]) for version, each in files.read_versions(files.EARLIER).items()
    }
    assert releases.get(files.VERSION, files.INTEGRITY) == files.INTEGRITY, "give it another version"
    assert releases.items() <= served.items(), "keep the files of the version before in api/sdk/releases/VERSION/"


async def test_an_upgrade_of_the_server_leaves_a_shop_the_version_that_it_names(
    buyer: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hash in the shop's page fits no other file: its browser would run none."""
    shutil.copytree(files.FOLDER, tmp_path / "0.9.0")
    (tmp_path / "0.9.0" / files.NAME).write_bytes(b"export {};")
    versions = files.read_versions(tmp_path)
    served = {version: handlers.responses_of(contents) for version, contents in versions.items()}
    monkeypatch.setattr(handlers, "_VERSIONS", served)
    for version, module in (("0.9.0", b"export {};"), (files.VERSION, files.MODULE)):
        response = await buyer.get(f"/sdk/{version}/{files.NAME}")
        assert (response.body, "immutable" in response.headers["cache-control"]) == (module, True)


def test_the_documentation_names_this_version_and_its_hash() -> None:
    assert f'integrity="{files.INTEGRITY}"' in EMBEDDING
    assert set(re.findall(r"/sdk/([0-9.]+)/", EMBEDDING)) == {files.VERSION}


@pytest.mark.servers
def test_the_types_are_correct_and_fit_a_shop(tmp_path: Path) -> None:
    compiler = shutil.which("tsc")
    if compiler is None:
        pytest.skip("there is no TypeScript compiler (Debian's node-typescript)")
    for name, content in files.FILES.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "shop.ts").write_text(
        'import { watchOrder, type OrderState } from "./order-status.js";\n'
        "const show = (state: OrderState) => console.log(state.net);\n"
        'const order = watchOrder({ url: "https://pay.example.com", token: "t", onChange: show });\n'
        "export const done: Promise<boolean> = order.refresh().then((state) => state.definite);\n"
        'export const element: string = document.createElement("nodrop-order").tagName;\n'
    )
    options = ["--strict", "--noEmit", "--target", "es2020", "--module", "es2020", "--lib", "es2020,dom"]
    checked = subprocess.run(
        [compiler, *options, "shop.ts"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert checked.returncode == 0, checked.stdout


async def test_the_module_is_immutable_and_for_every_site(buyer: Client) -> None:
    response = await buyer.get(files.URL)
    assert (response.status, response.body) == (200, files.MODULE)
    assert response.headers["content-type"] == "text/javascript; charset=utf-8"
    assert response.headers["access-control-allow-origin"] == "*"
    assert "immutable" in response.headers["cache-control"]
    other = await buyer.get("/sdk/9.9.9/order-status.js")
    assert (other.status, other.headers["cache-control"]) == (200, "no-store")
    assert (await buyer.get(f"/sdk/{files.VERSION}/package.json")).status == 404


async def test_the_page_of_the_module_shows_what_a_shop_copies(buyer: Client, settings: Settings) -> None:
    page = (await buyer.get("/sdk/")).body.decode()
    assert files.INTEGRITY in page
    assert f"{settings.public_url}{files.URL}" in page


async def test_a_shop_may_read_state_and_refresh_and_nothing_else(client: Client, buyer: Client, account: str) -> None:
    order = (await client.post("/v1/orders", terms(account=account))).json
    address = f"/o/{token_of(order)}"
    from_shop = {"origin": SHOP, "sec_fetch_site": "cross-site", "accept": "application/json"}
    for response in (
        await buyer.get(f"{address}/status", **from_shop),
        await buyer.post(f"{address}/refresh", **from_shop),
        await buyer.get("/o/nobody-has-this-token/status", **from_shop),
    ):
        assert response.headers["access-control-allow-origin"] == SHOP
        assert response.headers["access-control-expose-headers"] == "retry-after"
        assert "access-control-allow-credentials" not in response.headers
    for target in (address, "/o/shell", "/openapi.json", "/v1/orders"):
        assert "access-control-allow-origin" not in (await buyer.get(target, **from_shop)).headers
    paid = await buyer.post(f"{address}/pay", **from_shop)
    assert "access-control-allow-origin" not in paid.headers
    assert "error=origin" in paid.headers["location"]


async def test_another_site_reads_nothing(client: Client, buyer: Client) -> None:
    order = (await client.post("/v1/orders", terms())).json
    for origin in ("https://evil.example", "null", f"{SHOP}.evil.example", SHOP.upper()):
        headers = {"origin": origin, "sec_fetch_site": "cross-site", "accept": "application/json"}
        status = await buyer.get(f"/o/{token_of(order)}/status", **headers)
        assert "access-control-allow-origin" not in status.headers
        assert (await buyer.post(f"/o/{token_of(order)}/refresh", **headers)).status == 400
