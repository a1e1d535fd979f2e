"""The parts of the door's one statement; `shapes` has the texts that are sent.

`$1` is a JSON document with a list of rows for each table. Each row names its `operation`, and each part writes the
rows of one operation. `changed_orders` is the compare-and-set: the parts that belong to a change join it, so an order
that has another version by then writes nothing.

The planner takes every `jsonb_to_recordset` for 100 rows, and would join a table with so many by reading all of it; the
plan stays when the table grows. A comparison with one value of a column counts as a hundredth: so a part expects one
row of its operation, and finds its target by the key. While a table has hardly a row, equality would be a reason to
walk its index whole, for a merge; BETWEEN is none.
"""

from __future__ import annotations

PARTS = """
-- PART orders
order_rows AS MATERIALIZED (
    SELECT r.*
      FROM document, jsonb_to_recordset(d->'orders') AS r(
           operation text, order_no text, amount bigint, currency text, subject text, status text, version integer,
           page_token text, created_at timestamptz, expires_at timestamptz, handed_off_at timestamptz,
           paid_by_account text, paid_by_out_trade_no text, paid_at timestamptz, closed_at timestamptz,
           notify_url text, return_url text, metadata jsonb, accounts text[], payer jsonb,
           unpaid_version integer)
)
-- PART orders.insert
inserted_orders AS (
    INSERT INTO orders (order_no, amount, currency, subject, status, version, page_token, created_at, expires_at,
                        handed_off_at, notify_url, return_url, metadata, accounts, payer)
    SELECT order_no, amount, currency, subject, status, version, page_token, created_at, expires_at,
           handed_off_at, notify_url, return_url, metadata, accounts, payer
      FROM order_rows
     WHERE operation = 'insert'
     ORDER BY order_no
    ON CONFLICT (order_no) DO NOTHING
    RETURNING order_no, version
)
-- PART orders.locked
locked_orders AS MATERIALIZED (
    SELECT r.*
      FROM order_rows r
      JOIN orders o ON o.order_no BETWEEN r.order_no AND r.order_no
     WHERE r.operation = 'update'
     ORDER BY r.order_no
       FOR NO KEY UPDATE OF o SKIP LOCKED
)
-- PART orders.update
updated_orders AS (
    UPDATE orders o
       SET version = r.version, status = r.status, expires_at = r.expires_at, handed_off_at = r.handed_off_at,
           paid_by_account = r.paid_by_account, paid_by_out_trade_no = r.paid_by_out_trade_no, paid_at = r.paid_at,
           closed_at = r.closed_at, subject = r.subject, return_url = r.return_url, metadata = r.metadata,
           payer = r.payer, unpaid_version = r.unpaid_version, updated_at = now()
      FROM {rows to update} r
     WHERE r.operation = 'update' AND o.order_no BETWEEN r.order_no AND r.order_no AND o.version = r.version - 1
    RETURNING o.order_no, o.version
)
-- PART payments.insert
inserted_payments AS (
    INSERT INTO payments (channel_account, out_trade_no, order_no, attempt_no, method, origin, amount, currency, status,
                          channel_reference, payable_until, created_at, payer, live)
    SELECT r.channel_account, r.out_trade_no, r.order_no, r.attempt_no, r.method, r.origin, r.amount, r.currency,
           r.status, r.channel_reference, r.payable_until, r.created_at, r.payer,
           r.live
      FROM document, jsonb_to_recordset(d->'payments') AS r(
           operation text, channel_account text, out_trade_no text, order_no text, attempt_no integer, method text,
           origin text, amount bigint, currency text, status text, channel_reference text, payable_until timestamptz,
           created_at timestamptz, payer jsonb, live boolean)
      JOIN changed_orders USING (order_no)
     WHERE r.operation = 'insert'
)
-- PART payments.update
updated_payments AS (
    UPDATE payments p
       SET status = r.status, checkout = r.checkout, channel_reference = r.channel_reference,
           channel_transaction_id = r.channel_transaction_id, payable_until = r.payable_until, paid_at = r.paid_at,
           refunded_amount = coalesce(r.refunded_amount, 0), is_refund_amount_unknown = r.refunded_amount IS NULL,
           channel_refunds = r.channel_refunds, close_attempted_at = r.close_attempted_at, refused_at = r.refused_at,
           unconfirmed_since = r.unconfirmed_since, checkout_ends_at = r.checkout_ends_at, payer = r.payer,
           capture_requested_at = r.capture_requested_at, capture_refused_at = r.capture_refused_at,
           given_up_at = r.given_up_at
      FROM document, jsonb_to_recordset(d->'payments') AS r(
           operation text, channel_account text, out_trade_no text, order_no text, status text, checkout jsonb,
           channel_reference text, channel_transaction_id text, payable_until timestamptz, paid_at timestamptz,
           refunded_amount bigint, channel_refunds jsonb, close_attempted_at timestamptz, refused_at timestamptz,
           unconfirmed_since timestamptz, checkout_ends_at timestamptz, payer jsonb, capture_requested_at timestamptz,
           capture_refused_at timestamptz, given_up_at timestamptz)
      JOIN changed_orders USING (order_no)
     WHERE r.operation = 'update' AND (p.channel_account, p.out_trade_no) BETWEEN (r.channel_account, r.out_trade_no)
                                                                      AND (r.channel_account, r.out_trade_no)
)
-- PART pending
-- Pending rows may also move without a change of their order: those are guarded by their arm numbers alone.
pending_rows AS MATERIALIZED (
    SELECT r.*, coalesce(r.at, now() + make_interval(secs => r.delay_s)) AS due_at
      FROM document, jsonb_to_recordset(d->'pending') AS r(
           operation text, channel_account text, out_trade_no text, kind text, order_no text, attempt integer,
           at timestamptz, delay_s double precision, expected_arm_no integer, needs_change boolean)
     WHERE NOT r.needs_change OR r.order_no = ANY(ARRAY(SELECT order_no FROM changed_orders))
)
-- PART pending.insert
inserted_pending AS (
    INSERT INTO pending (channel_account, out_trade_no, kind, order_no, attempt, arm_no, due_at)
    SELECT channel_account, out_trade_no, kind, order_no, attempt, 1, due_at
      FROM pending_rows
     WHERE operation = 'insert'
    ON CONFLICT (channel_account, out_trade_no) DO NOTHING
    RETURNING json_build_array(channel_account, out_trade_no) AS key, kind, order_no, arm_no,
              greatest(0, extract(epoch FROM due_at - now())) AS delay_s
)
-- PART pending.update
updated_pending AS (
    UPDATE pending p
       SET attempt = r.attempt, arm_no = p.arm_no + 1, leased_at = NULL, leased_until = NULL, due_at = r.due_at,
           answered_from = coalesce(p.leased_at, p.answered_from)
      FROM pending_rows r
     WHERE r.operation = 'update' AND (p.channel_account, p.out_trade_no) BETWEEN (r.channel_account, r.out_trade_no)
                                                                      AND (r.channel_account, r.out_trade_no)
       AND p.arm_no = r.expected_arm_no
    RETURNING json_build_array(p.channel_account, p.out_trade_no) AS key, p.kind, p.order_no, p.arm_no,
              greatest(0, extract(epoch FROM p.due_at - now())) AS delay_s
)
-- PART pending.delete
deleted_pending AS (
    DELETE FROM pending p
     USING pending_rows r
     WHERE r.operation = 'delete' AND (p.channel_account, p.out_trade_no) BETWEEN (r.channel_account, r.out_trade_no)
                                                                      AND (r.channel_account, r.out_trade_no)
    RETURNING json_build_array(p.channel_account, p.out_trade_no) AS key, p.kind, p.order_no, p.arm_no, 0 AS delay_s
)
-- PART events.insert
inserted_events AS (
    INSERT INTO order_events (order_no, version, kind, by, channel_account, out_trade_no, evidence, note, api_key)
    SELECT r.order_no, changed_orders.version, r.kind, r.by, r.channel_account, r.out_trade_no, r.evidence, r.note,
           r.api_key
      FROM document, jsonb_to_recordset(d->'events') AS r(
           order_no text, kind text, by text, channel_account text, out_trade_no text, evidence jsonb, note text,
           api_key text)
      JOIN changed_orders USING (order_no)
)
-- PART cases.insert
inserted_cases AS (
    INSERT INTO cases (order_no, channel_account, out_trade_no, reason, detail, phrase)
    SELECT r.order_no, r.channel_account, r.out_trade_no, r.reason, r.detail, r.phrase
      FROM document, jsonb_to_recordset(d->'cases') AS r(
           operation text, order_no text, channel_account text, out_trade_no text, reason text, detail text,
           phrase text)
      JOIN changed_orders USING (order_no)
     WHERE r.operation = 'insert'
    ON CONFLICT DO NOTHING
)
-- PART cases.update
updated_cases AS (
    UPDATE cases c
       SET resolved_at = now(), resolution = r.resolution, resolution_phrase = r.phrase, by = r.by
      FROM document, jsonb_to_recordset(d->'cases') AS r(
           operation text, order_no text, channel_account text, out_trade_no text, reason text, resolution text,
           phrase text, by text)
      JOIN changed_orders USING (order_no)
     WHERE r.operation = 'update' AND c.order_no = r.order_no AND c.channel_account = r.channel_account
       AND c.out_trade_no = r.out_trade_no AND c.reason = r.reason
       AND coalesce(c.resolved_at, 'infinity') = 'infinity'
)
-- PART refunds.insert
inserted_refunds AS (
    INSERT INTO refunds (refund_no, channel_account, out_trade_no, order_no, amount, currency, reason, status,
                         requested_at, request_key, note)
    SELECT r.refund_no, r.channel_account, r.out_trade_no, r.order_no, r.amount, r.currency, r.reason, r.status,
           r.requested_at, r.request_key, r.note
      FROM document, jsonb_to_recordset(d->'refunds') AS r(
           operation text, refund_no text, channel_account text, out_trade_no text, order_no text, amount bigint,
           currency text, reason text, status text, requested_at timestamptz, request_key text, note text)
      JOIN changed_orders USING (order_no)
     WHERE r.operation = 'insert'
    RETURNING order_no, refund_no
)
-- PART refunds.update
updated_refunds AS (
    UPDATE refunds t
       SET status = r.status, settled_at = r.settled_at, last_error = r.last_error,
           channel_refund_no = coalesce(t.channel_refund_no, r.channel_refund_no),
           leased_until = CASE WHEN r.settled_at IS NULL THEN t.leased_until END
      FROM document, jsonb_to_recordset(d->'refunds') AS r(
           operation text, refund_no text, order_no text, status text, settled_at timestamptz, last_error text,
           channel_refund_no text)
      JOIN changed_orders USING (order_no)
     WHERE r.operation = 'update' AND t.refund_no BETWEEN r.refund_no AND r.refund_no
)
-- PART disputes.write
written_disputes AS (
    INSERT INTO disputes (channel_account, out_trade_no, dispute_id, order_no, kind, state, amount, currency, reason,
                          outcome, respond_by, opened_at, changed_at)
    SELECT r.channel_account, r.out_trade_no, r.dispute_id, r.order_no, r.kind, r.state, r.amount, r.currency, r.reason,
           r.outcome, r.respond_by, r.opened_at, r.changed_at
      FROM document, jsonb_to_recordset(d->'disputes') AS r(
           channel_account text, out_trade_no text, dispute_id text, order_no text, kind text, state text,
           amount bigint, currency text, reason text, outcome text, respond_by timestamptz, opened_at timestamptz,
           changed_at timestamptz)
      JOIN changed_orders USING (order_no)
    ON CONFLICT (channel_account, out_trade_no, dispute_id) DO UPDATE
       SET kind = EXCLUDED.kind, state = EXCLUDED.state, amount = EXCLUDED.amount, currency = EXCLUDED.currency,
           reason = EXCLUDED.reason, outcome = EXCLUDED.outcome, respond_by = EXCLUDED.respond_by,
           opened_at = EXCLUDED.opened_at, changed_at = EXCLUDED.changed_at
)
-- PART notifications
notification_rows AS MATERIALIZED (
    SELECT r.*
      FROM document, jsonb_to_recordset(d->'notifications') AS r(
           operation text, id text, order_no text, version integer, type text, url text, body text)
      JOIN changed_orders USING (order_no, version)
)
-- PART notifications.supersede
superseded_notifications AS (
    -- Only "closed", and only by the notification that says that the order is not: the merchant must hear of money
    -- whatever came after, and of the close also when a dispute follows it.
    UPDATE notifications n
       SET superseded_at = now()
      FROM notification_rows r
     WHERE r.operation = 'supersede' AND n.order_no BETWEEN r.order_no AND r.order_no AND n.type = 'order.closed'
       AND n.delivered_at IS NULL AND n.superseded_at IS NULL
)
-- PART notifications
inserted_notifications AS (
    INSERT INTO notifications (id, order_no, version, type, url, body)
    SELECT id, order_no, version, type, url, decode(body, 'base64')
      FROM notification_rows
    RETURNING order_no, id
)
-- PART observations.insert
inserted_observations AS (
    INSERT INTO observations (order_no, kind, by, channel_account, out_trade_no, note)
    SELECT r.order_no, r.kind, r.by, r.channel_account, r.out_trade_no, r.note
      FROM document, jsonb_to_recordset(d->'observations') AS r(
           order_no text, kind text, by text, channel_account text, out_trade_no text, note text, needs_change boolean)
     WHERE NOT r.needs_change OR r.order_no = ANY(ARRAY(SELECT order_no FROM changed_orders))
)
-- PART callbacks.update
-- As pending rows without a change: a decision that lost the race ends no callback.
callback_rows AS MATERIALIZED (
    SELECT r.*
      FROM document, jsonb_to_recordset(d->'callbacks') AS r(
           operation text, id uuid, outcome text, order_no text, needs_change boolean)
     WHERE NOT r.needs_change OR r.order_no = ANY(ARRAY(SELECT order_no FROM changed_orders))
)
-- PART callbacks.update
handled_callbacks AS (
    UPDATE callbacks c
       SET handled_at = clock_timestamp(), outcome = r.outcome, leased_until = NULL
      FROM callback_rows r
     WHERE r.operation = 'update' AND c.id BETWEEN r.id AND r.id AND c.handled_at IS NULL
)
"""
