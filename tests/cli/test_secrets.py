"""Notification secrets of single hosts, as an operator sets and changes them."""

from pathlib import Path

import pytest

from core.errors import ConfigurationError
from runtime.resources import Resources
from storage.postgres.notify_secrets import open_secrets, read_secrets, sealed_secrets
from storage.sealing import Sealer, new_master_key
from tests.cli.nodrop import Nodrop

HOST = "shop.example.com"
GIVEN = "whsec_" + "c2VjcmV0IG9mIHRoZSBtZXJjaGFudCE="


async def signing(resources: Resources, host: str = HOST) -> tuple[str, ...] | None:
    return (await read_secrets(resources.db, resources.sealer)).get(host)


async def test_a_secret_is_printed_alone_and_stored_sealed(nodrop: Nodrop, resources: Resources) -> None:
    ran = await nodrop("secrets", "set", HOST)
    assert ran.code == 0
    assert await signing(resources) == (ran.out.strip(),)
    assert ran.out.strip() not in ran.err
    (row,) = await sealed_secrets(resources.db)
    assert ran.out.strip().encode() not in row.sealed
    listed = await nodrop("secrets", "list")
    assert HOST in listed.out
    assert "whsec_" not in listed.out


async def test_the_first_rotation_keeps_the_secret_that_signs_for_every_host(
    nodrop: Nodrop, resources: Resources
) -> None:
    """The merchant verifies with it until it has changed."""
    ran = await nodrop("secrets", "rotate", HOST, "--json")
    assert (ran.json["host"], ran.json["signing"]) == (HOST, 2)
    assert await signing(resources) == (ran.json["secret"], nodrop.env["NOTIFY_SECRETS"])
    retired = await nodrop("secrets", "retire", HOST, "--json")
    assert retired.json == {"host": HOST, "signing": 1}
    assert await signing(resources) == (ran.json["secret"],)


async def test_each_later_rotation_keeps_the_secret_before(nodrop: Nodrop, resources: Resources) -> None:
    first = (await nodrop("secrets", "set", HOST, "--json")).json["secret"]
    second = (await nodrop("secrets", "rotate", HOST, "--json")).json["secret"]
    assert await signing(resources) == (second, first)
    (row,) = (await nodrop("secrets", "list", "--json")).json
    assert (row["host"], row["secrets"]) == (HOST, 2)


async def test_a_third_secret_is_refused_until_a_change_has_ended(nodrop: Nodrop, resources: Resources) -> None:
    """It would end one of the two, with which the merchant may verify."""
    await nodrop("secrets", "rotate", HOST)
    before = await signing(resources)
    ran = await nodrop("secrets", "rotate", HOST)
    assert (ran.code, ran.line.startswith("2 secrets sign for shop.example.com already")) == (1, True)
    several = f"{nodrop.env['NOTIFY_SECRETS']},{GIVEN}"
    ran = await nodrop("secrets", "rotate", "other.example.com", env={"NOTIFY_SECRETS": several})
    assert ran.code == 1
    assert "set NOTIFY_SECRETS to one" in ran.line
    assert await signing(resources) == before


async def test_a_secret_of_the_merchants_is_read_and_not_printed(
    nodrop: Nodrop, resources: Resources, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    file.write_text(GIVEN + "\n")
    ran = await nodrop("secrets", "set", HOST, "--from", str(file))
    assert (ran.code, ran.out) == (0, "")
    assert GIVEN not in ran.err
    assert await signing(resources) == (GIVEN,)
    again = await nodrop("secrets", "rotate", HOST, "--from", "-", stdin=GIVEN.encode())
    assert (again.code, again.line) == (1, f"this secret signs for {HOST} already")


async def test_what_is_no_secret_is_refused_and_not_shown(nodrop: Nodrop, resources: Resources) -> None:
    for text in (b"", b"canary", b"whsec_Y2FuYXJ5", b"\xff"):
        ran = await nodrop("secrets", "set", HOST, "--from", "-", stdin=text)
        assert (ran.code, ran.out) == (2, "")
        assert "canary" not in ran.err
    assert (await nodrop("secrets", "set", HOST, "--from", "/nowhere")).code == 2
    assert await signing(resources) is None


async def test_secrets_are_not_replaced_unasked(nodrop: Nodrop, resources: Resources) -> None:
    await nodrop("secrets", "set", HOST)
    ran = await nodrop("secrets", "set", HOST)
    assert (ran.code, ran.line.startswith(f"{HOST} has secrets already")) == (1, True)
    ran = await nodrop("secrets", "set", HOST, "--replace")
    assert await signing(resources) == (ran.out.strip(),)


@pytest.mark.parametrize("text", ["Shop.Example.COM", "shop.example.com."])
async def test_a_host_is_one_however_it_is_written(nodrop: Nodrop, resources: Resources, text: str) -> None:
    assert (await nodrop("secrets", "set", text)).code == 0
    assert await signing(resources) is not None


async def test_an_international_name_is_stored_as_deliveries_name_it(nodrop: Nodrop, resources: Resources) -> None:
    assert (await nodrop("secrets", "set", "bücher.example")).code == 0
    assert await signing(resources, "xn--bcher-kva.example") is not None


@pytest.mark.parametrize(
    "text", ["", "https://shop.example.com", "shop.example.com/hook", "a@b.example", "a.example:81"]
)
async def test_what_is_no_host_is_refused(nodrop: Nodrop, resources: Resources, text: str) -> None:
    ran = await nodrop("secrets", "set", text)
    assert (ran.code, ran.out) == (2, "")
    assert "HOST" in ran.err
    assert await read_secrets(resources.db, resources.sealer) == {}


async def test_removed_secrets_leave_the_host_to_notify_secrets(nodrop: Nodrop, resources: Resources) -> None:
    await nodrop("secrets", "set", HOST)
    assert (await nodrop("secrets", "remove", HOST)).code == 0
    assert await signing(resources) is None
    for command in ("remove", "retire"):
        ran = await nodrop("secrets", command, HOST)
        assert ran.code == 1
        assert ran.line.startswith(HOST)


async def test_the_secrets_of_a_host_open_for_it_alone(nodrop: Nodrop, resources: Resources) -> None:
    for host in (HOST, "other.example.com"):
        await nodrop("secrets", "set", host)
    await resources.db.execute(
        "UPDATE notify_secrets SET sealed = (SELECT sealed FROM notify_secrets WHERE host = 'other.example.com')"
    )
    (row,) = [row for row in await sealed_secrets(resources.db) if row.host == HOST]
    with pytest.raises(ConfigurationError):
        open_secrets(row, resources.sealer)
    with pytest.raises(ConfigurationError):
        open_secrets(row, Sealer.from_setting(new_master_key("other")))
