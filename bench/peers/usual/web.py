"""The web process: orders of the merchant, callbacks of the channel."""

from __future__ import annotations

import hmac
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import uuid4

import httpx
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from bench.peers.usual import channel
from bench.peers.usual.models import Callback, Order, Payment
from bench.peers.usual.settings import API_KEY, DATABASE, EXPIRES_S, PUBLIC_URL, UNIT_S
from bench.peers.usual.tasks import handle_callback, query_payment

POOL_SIZE = 20

log = logging.getLogger("usual")
logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
logging.getLogger("httpx").setLevel(logging.WARNING)

engine = create_async_engine(f"postgresql+asyncpg://{DATABASE}", pool_size=POOL_SIZE, max_overflow=0)
sessions = async_sessionmaker(engine, expire_on_commit=False)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with channel.async_client() as app.state.http:
        yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan, openapi_url=None)


class NewOrder(BaseModel):
    order_no: str = Field(min_length=1, max_length=64)
    amount: int = Field(gt=0)
    currency: str = Field(pattern=r"^[A-Z]{3}$")
    subject: str = Field(min_length=1, max_length=256)
    account: str = Field(min_length=1, max_length=64)
    notify_url: str = Field(max_length=2048)


class CheckoutOut(BaseModel):
    kind: str = "redirect"
    value: str


class PaymentOut(BaseModel):
    out_trade_no: str
    account: str
    status: str
    checkout: CheckoutOut | None


class OrderOut(BaseModel):
    order_no: str
    status: str
    version: int
    amount: int
    currency: str
    order_page: str
    payments: list[PaymentOut]


async def open_session() -> AsyncIterator[AsyncSession]:
    async with sessions() as session:
        yield session


async def authenticate(authorization: Annotated[str, Header()] = "") -> None:
    if not hmac.compare_digest(authorization, f"Bearer {API_KEY}"):
        raise HTTPException(401)


Session = Annotated[AsyncSession, Depends(open_session)]


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/v1/orders", status_code=201, dependencies=[Depends(authenticate)])
async def place(new: NewOrder, session: Session, request: Request) -> OrderOut:
    """Store order and payment, schedule its query, create it at the channel, store the checkout."""
    order, payment = _rows(new)
    session.add_all([order, payment])
    try:
        await session.commit()
    except IntegrityError:
        await session.rollback()
        order, payment = await _placed(session, new)
    else:
        query_payment.apply_async((payment.out_trade_no, 1), countdown=UNIT_S)
    if payment.pay_url is None:
        await _create(request.app.state.http, session, order, payment)
    log.info("order_placed order_no=%s out_trade_no=%s", order.order_no, payment.out_trade_no)
    return _shown(order, payment)


def _rows(new: NewOrder) -> tuple[Order, Payment]:
    order = Order(
        **new.model_dump(exclude={"account"}),
        status="created",
        expires_at=datetime.now(UTC) + timedelta(seconds=EXPIRES_S),
    )
    return order, Payment(out_trade_no=uuid4().hex, order_no=new.order_no, account=new.account, status="open")


async def _placed(session: AsyncSession, new: NewOrder) -> tuple[Order, Payment]:
    """Return the order that has this number; 409 if its terms are other ones."""
    query = select(Order, Payment).join(Payment, Payment.order_no == Order.order_no)
    order, payment = (await session.execute(query.where(Order.order_no == new.order_no))).one()
    if (order.amount, order.currency, order.notify_url) != (new.amount, new.currency, new.notify_url):
        raise HTTPException(409, "this number has other terms")
    return order, payment


async def _create(http: httpx.AsyncClient, session: AsyncSession, order: Order, payment: Payment) -> None:
    try:
        payment.pay_url = await channel.create_payment(
            http,
            out_trade_no=payment.out_trade_no,
            amount=order.amount,
            currency=order.currency,
            subject=order.subject,
            expires_at=order.expires_at,
            callback_url=f"{PUBLIC_URL}/callbacks/{payment.account}",
        )
    except (httpx.HTTPError, channel.BadSignature, channel.Refused) as error:
        log.warning("payment_not_created out_trade_no=%s error=%r", payment.out_trade_no, error)
        return
    order.status = "paying"
    await session.commit()


def _shown(order: Order, payment: Payment) -> OrderOut:
    checkout = None if payment.pay_url is None else CheckoutOut(value=payment.pay_url)
    return OrderOut(
        order_no=order.order_no,
        status=order.status,
        version=order.version,
        amount=order.amount,
        currency=order.currency,
        order_page=f"{PUBLIC_URL}/o/{order.order_no}",
        payments=[
            PaymentOut(
                out_trade_no=payment.out_trade_no, account=payment.account, status=payment.status, checkout=checkout
            )
        ],
    )


@app.post("/callbacks/{account}")
async def receive(account: str, request: Request, session: Session) -> Response:
    """Verify and store it, then acknowledge; a task does the rest."""
    body = await request.body()
    callback_id = request.headers.get("sandbox-callback-id", "")
    signature = request.headers.get("sandbox-signature", "")
    try:
        payment = channel.verify_callback(callback_id, signature, body)["payment"]
    except channel.BadSignature:
        raise HTTPException(400, "the signature does not verify") from None
    row = insert(Callback).values(
        id=callback_id, out_trade_no=payment["out_trade_no"], headers={"sandbox-signature": signature}, body=body
    )
    await session.execute(row.on_conflict_do_nothing())
    await session.commit()
    handle_callback.apply_async((callback_id,))
    log.info("callback_received account=%s out_trade_no=%s", account, payment["out_trade_no"])
    return Response(b"ok", media_type="text/plain")
