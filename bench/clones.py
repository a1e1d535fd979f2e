"""Many pending payments at once: one order is placed through the API, and its rows are copied in Postgres.

So a copy is what the code of today writes, whatever columns there are, under numbers of its own. It differs in one
thing: written once, it leaves no dead row versions behind, where a real order has been updated.
"""

from __future__ import annotations

from datetime import timedelta
from itertools import batched

from msgspec.structs import replace

from bench.buyer import Buyer, Unexpected
from bench.loops import closed_loop
from bench.rig import ACCOUNT, Rig
from channels.adapters import open_channel
from channels.base import Create
from channels.transport import Transport
from core.order import OrderState, PendingKind
from flows.arm import job_of
from storage.accounts import get_accounts
from storage.orders import find_state
from storage.pending import walk
from storage.sealing import Sealer

FIRST = "first-0000000000"
CHUNK = 5000
"""Orders copied by one statement: well within the time-out of a statement."""

# Order numbers of 16 characters, our numbers of 28 and page tokens of 22, as nodrop's own; random, as indexes meet them.
_COPY = """
INSERT INTO {table}
SELECT copy.*
  FROM {table} AS t
 CROSS JOIN generate_series($2::bigint, $3::bigint) AS i
 CROSS JOIN LATERAL (
        SELECT 'clone-' || lpad(i::text, 10, '0') AS order_no, left(md5('number' || i), 28) AS out_trade_no,
               left(md5('page' || i), 22) AS page_token,
               now() + make_interval(secs => $4 + ($5 - $4) * (i % 1000) / 1000) AS due_at
       ) AS n
 CROSS JOIN LATERAL jsonb_populate_record(t, jsonb_build_object({changes})) AS copy
 WHERE t.order_no = $1
   AND ($4::float8, $5::float8) IS NOT NULL"""
