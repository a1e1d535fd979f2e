"""The tables. `python -m bench.peers.usual.models` makes them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, DateTime, ForeignKey, LargeBinary, String, create_engine, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from bench.peers.usual.settings import DATABASE

_INSTANT = DateTime(timezone=True)


class Base(DeclarativeBase):
    """Nothing is read back after an insert: values of the server are not needed."""

    __mapper_args__: ClassVar[dict[str, Any]] = {"eager_defaults": False}


class Order(Base):
    __tablename__ = "orders"

    order_no: Mapped[str] = mapped_column(String(64), primary_key=True)
    amount: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(String(3))
    subject: Mapped[str] = mapped_column(String(256))
    status: Mapped[str] = mapped_column(String(16))
    version: Mapped[int] = mapped_column()
    notify_url: Mapped[str] = mapped_column(String(2048))
    created_at: Mapped[datetime] = mapped_column(_INSTANT, server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(_INSTANT)
    paid_at: Mapped[datetime | None] = mapped_column(_INSTANT)

    __mapper_args__: ClassVar[dict[str, Any]] = {"version_id_col": version, "eager_defaults": False}


class Payment(Base):
    __tablename__ = "payments"

    out_trade_no: Mapped[str] = mapped_column(String(64), primary_key=True)
    order_no: Mapped[str] = mapped_column(ForeignKey("orders.order_no"), index=True)
    account: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16))
    pay_url: Mapped[str | None] = mapped_column(String(2048))
    transaction_id: Mapped[str | None] = mapped_column(String(128), unique=True)


class Callback(Base):
    """The inbox."""

    __tablename__ = "callbacks"

    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    out_trade_no: Mapped[str] = mapped_column(String(128))
    headers: Mapped[dict[str, str]] = mapped_column(JSONB)
    body: Mapped[bytes] = mapped_column(LargeBinary)
    received_at: Mapped[datetime] = mapped_column(_INSTANT, server_default=func.now())
    handled_at: Mapped[datetime | None] = mapped_column(_INSTANT, index=True)


class Notification(Base):
    """The outbox."""

    __tablename__ = "notifications"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    order_no: Mapped[str] = mapped_column(ForeignKey("orders.order_no"), index=True)
    url: Mapped[str] = mapped_column(String(2048))
    body: Mapped[bytes] = mapped_column(LargeBinary)
    attempt: Mapped[int] = mapped_column(default=0)
    delivered_at: Mapped[datetime | None] = mapped_column(_INSTANT, index=True)


if __name__ == "__main__":
    Base.metadata.create_all(create_engine(f"postgresql+psycopg://{DATABASE}"))
