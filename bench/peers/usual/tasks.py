"""The worker: tasks that are acknowledged after they ran, so that a killed worker's task is run again.

`handle_callback` and `query_payment` query the channel and make the order paid; `push_notification` tells the merchant.
Every minute `send_again` and `close_expired` look for what was left.
"""

from __future__ import annotations

import base64
import hmac
import json
import logging
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
from celery import Celery
from celery.signals import setup_logging, worker_process_init
from sqlalchemy import create_engine, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.orm.exc import StaleDataError

from bench.peers.usual import channel
from bench.peers.usual.models import Callback, Notification, Order, Payment
from bench.peers.usual.settings import ATTEMPTS_MAX, DATABASE, NOTIFY_SECRET, REDIS_URL, UNIT_S

BATCH = 100

log = logging.getLogger("usual")

app = Celery("usual", broker=REDIS_URL)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    task_serializer="json",
    accept_content=["json"],
    worker_prefetch_multiplier=8,
    broker_connection_retry_on_startup=True,
    # Longer than any countdown: until then a task that waits is not given to another worker.
    broker_transport_options={"visibility_timeout": 86_400},
    beat_schedule={
        name: {"task": f"bench.peers.usual.tasks.{name}", "schedule": UNIT_S}
        for name in ("send_again", "close_expired")
    },
)

engine = create_engine(f"postgresql+psycopg://{DATABASE}", pool_size=2, max_overflow=0)
sessions = sessionmaker(engine, expire_on_commit=False)
http = channel.client()

RETRIES: dict[str, Any] = {
    "autoretry_for": (httpx.HTTPError, channel.BadSignature, channel.Refused, StaleDataError, OperationalError),
    "retry_backoff": True,
    "max_retries": ATTEMPTS_MAX,
}


@setup_logging.connect
def set_up_logging(**_: object) -> None:
    """A line for each decision, none for each task."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for name in ("celery", "httpx", "kombu"):
        logging.getLogger(name).setLevel(logging.WARNING)


@worker_process_init.connect
def forget_connections(**_: object) -> None:
    """A forked process opens its own."""
    engine.dispose(close=False)


@app.task(**RETRIES)
def handle_callback(callback_id: str) -> None:
    """A callback is a hint: the channel is queried before the order is paid."""
    with sessions() as session:
        callback = session.get_one(Callback, callback_id)
        if callback.handled_at is None:
            notification_id = _pay(session, callback.out_trade_no)
            callback.handled_at = datetime.now(UTC)
            session.commit()
            _notify(notification_id)


@app.task(**RETRIES)
def query_payment(out_trade_no: str, attempt: int) -> None:
    """Query a payment whose callback did not come, and again after n² minutes while it is open."""
    with sessions() as session:
        payment = session.get_one(Payment, out_trade_no)
        if payment.status != "open":
            return
        notification_id = _pay(session, out_trade_no)
        session.commit()
    _notify(notification_id)
    if notification_id is None and attempt < ATTEMPTS_MAX:
        query_payment.apply_async((out_trade_no, attempt + 1), countdown=UNIT_S * (attempt + 1) ** 2)


def _pay(session: Session, out_trade_no: str) -> str | None:
    """Make the order paid if the channel says so; return the notification to send after the commit."""
    query = select(Order, Payment).join(Payment, Payment.order_no == Order.order_no)
    order, payment = session.execute(query.where(Payment.out_trade_no == out_trade_no)).one()
    found = channel.query_payment(http, out_trade_no)
    if found["status"] != "paid" or order.status == "paid":
        return None
    if (found["amount"], found["currency"]) != (order.amount, order.currency):
        log.error("amount_mismatch out_trade_no=%s", out_trade_no)
        return None
    order.status, order.paid_at = "paid", datetime.now(UTC)
    payment.status, payment.transaction_id = "paid", found["transaction_id"]
    notification = _notification(order)
    session.add(notification)
    log.info("order_paid order_no=%s out_trade_no=%s", order.order_no, out_trade_no)
    return str(notification.id)


def _notification(order: Order) -> Notification:
    id_, now = f"msg_{uuid4().hex}", datetime.now(UTC)
    data = {
        "order_no": order.order_no,
        "version": order.version + 1,
        "status": order.status,
        "amount": order.amount,
        "currency": order.currency,
    }
    body = {"id": id_, "type": "order.paid", "created_at": now.isoformat(), "data": data}
    return Notification(id=id_, order_no=order.order_no, url=order.notify_url, body=json.dumps(body).encode())


def _notify(notification_id: str | None) -> None:
    if notification_id is not None:
        push_notification.apply_async((notification_id,))


@app.task
def push_notification(notification_id: str) -> None:
    """Send it, signed; a failure is tried again after n² minutes."""
    with sessions() as session:
        notification = session.get_one(Notification, notification_id)
        if notification.delivered_at is not None:
            return
        notification.attempt += 1
        try:
            response = http.post(notification.url, content=notification.body, headers=_headers(notification))
            is_delivered = response.is_success
        except httpx.HTTPError:
            is_delivered = False
        if is_delivered:
            notification.delivered_at = datetime.now(UTC)
        session.commit()
        log.info("notification_sent id=%s delivered=%s", notification_id, is_delivered)
    if not is_delivered and notification.attempt < ATTEMPTS_MAX:
        push_notification.apply_async((notification_id,), countdown=UNIT_S * notification.attempt**2)


def _headers(notification: Notification) -> dict[str, str]:
    """Standard Webhooks."""
    at = str(int(time.time()))
    key = base64.b64decode(NOTIFY_SECRET.removeprefix("whsec_"))
    mac = hmac.digest(key, f"{notification.id}.{at}.".encode() + notification.body, "sha256")
    return {
        "content-type": "application/json",
        "webhook-id": notification.id,
        "webhook-timestamp": at,
        "webhook-signature": "v1," + base64.b64encode(mac).decode(),
    }


@app.task
def send_again() -> None:
    """Tasks of callbacks that nobody handled for five minutes, such as after a crash."""
    before = datetime.now(UTC) - timedelta(minutes=5)
    query = select(Callback.id).where(Callback.handled_at.is_(None), Callback.received_at < before).limit(BATCH)
    with sessions() as session:
        for callback_id in session.scalars(query):
            handle_callback.apply_async((callback_id,))


@app.task
def close_expired() -> None:
    """Orders that nobody paid in time."""
    expired = update(Order).where(Order.status.in_(("created", "paying")), Order.expires_at < datetime.now(UTC))
    with sessions() as session:
        session.execute(expired.values(status="closed", version=Order.version + 1))
        session.commit()
