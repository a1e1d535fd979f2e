"""Statements that somebody wants to be read: one request for the same thing, a lease, progress, a file that goes."""

from datetime import date
from hashlib import sha256

import pytest

from core.errors import ConfigurationError
from storage.postgres.database import Database
from storage.postgres.statement_requests import (
    StatementRequest,
    add_request,
    claim_request,
    delete_file,
    delete_old_files,
    delete_old_requests,
    end_request,
    find_file,
    find_request,
    give_request_back,
    keep_request,
    list_requests,
    put_file,
)
from storage.sealing import Sealer, new_master_key
from tests.sealed import SEALER
from tests.storage.postgres.tools import count

DAY = date(2026, 11, 22)


async def asked(
    db: Database, *, dry_run: bool = True, digest: bytes | None = None, by: str = "alice"
) -> StatementRequest:
    return await add_request(db, "main", DAY, dry_run=dry_run, digest=digest, by=by, reason="lost")


async def test_the_same_request_is_one_until_it_has_ended(db: Database) -> None:
    first = await asked(db)
    assert (await asked(db, by="bob")).id == first.id
    assert (await asked(db, dry_run=False)).id != first.id
    assert (await asked(db, digest=b"d" * 32)).id != first.id
    leased = await claim_request(db, 20.0)
    assert leased is not None
    assert leased.request.id == first.id
    await end_request(db, leased, run_id=None)
    assert (await asked(db)).id > first.id
    assert len(await list_requests(db, "main", DAY)) == 4


async def test_one_process_works_on_a_request_and_tells_how_far_it_is(db: Database) -> None:
    request = await asked(db)
    leased = await claim_request(db, 20.0)
    assert leased is not None
    assert await claim_request(db, 20.0) is None
    assert await keep_request(db, leased, done=500, rows=1200, lease_s=20.0)
    found = await find_request(db, request.id)
    assert found is not None
    assert (found.status, found.rows_done, found.rows, found.reason) == ("running", 500, 1200, "lost")
    await end_request(db, leased, run_id=None, error="not of the form", rows=1200)
    found = await find_request(db, request.id)
    assert found is not None
    assert (found.status, found.error, found.rows_done) == ("failed", "not of the form", 1200)
    assert not await keep_request(db, leased, done=1, rows=2, lease_s=20.0)
    assert await find_request(db, 10**9) is None


async def test_a_request_whose_process_has_gone_is_taken_again(db: Database) -> None:
    await asked(db)
    gone = await claim_request(db, 0.0)
    again = await claim_request(db, 20.0)
    assert gone is not None
    assert again is not None
    assert again.request.id == gone.request.id
    await end_request(db, gone, run_id=None, error="too late")
    found = await find_request(db, again.request.id)
    assert found is not None
    assert found.status == "running"
    await give_request_back(db, again, delay_s=0.0, is_begun=True)
    third = await claim_request(db, 20.0)
    assert third is not None
    assert [each.request.attempt for each in (gone, again, third)] == [1, 2, 3]


async def test_a_request_that_was_given_back_waits(db: Database) -> None:
    await asked(db)
    leased = await claim_request(db, 20.0)
    assert leased is not None
    await give_request_back(db, leased, delay_s=60.0, is_begun=False)
    assert await claim_request(db, 20.0) is None
    found = await find_request(db, leased.request.id)
    assert found is not None
    assert found.attempt == 0


async def test_a_file_is_sealed_and_found_by_its_hash_at_its_account_alone(db: Database) -> None:
    digest = await put_file(db, SEALER, "main", b"buyers and sums")
    assert digest == sha256(b"buyers and sums").digest()
    assert b"buyers" not in bytes(await db.fetchval("SELECT sealed FROM statement_files"))
    assert await find_file(db, SEALER, "main", digest) == b"buyers and sums"
    assert await find_file(db, SEALER, "other", digest) is None
    with pytest.raises(ConfigurationError):
        await find_file(db, Sealer.from_setting(new_master_key("another")), "main", digest)
    await put_file(db, SEALER, "main", b"buyers and sums")
    assert await count(db, "statement_files") == 1
    await delete_file(db, "main", digest)
    assert await find_file(db, SEALER, "main", digest) is None


async def test_old_files_go_unless_somebody_is_to_read_them_and_so_do_old_requests(db: Database) -> None:
    wanted = await put_file(db, SEALER, "main", b"wanted")
    await put_file(db, SEALER, "main", b"left")
    await asked(db, digest=wanted)
    assert await delete_old_files(db) == 0
    await db.execute("UPDATE statement_files SET uploaded_at = now() - interval '25 h'")
    assert await delete_old_files(db) == 1
    assert await find_file(db, SEALER, "main", wanted) == b"wanted"
    leased = await claim_request(db, 20.0)
    assert leased is not None
    await end_request(db, leased, run_id=None)
    assert await delete_old_requests(db, keep_days=90, limit=10) == 0
    await db.execute("UPDATE statement_requests SET ended_at = now() - interval '91 days'")
    assert await delete_old_requests(db, keep_days=90, limit=10) == 1
