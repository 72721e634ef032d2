"""The shop's tables: articles and orders, in SQLite."""

from __future__ import annotations

import time
from typing import Any

import faults
from sqlalchemy import ForeignKey, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool

PRICES = {"tea": 4, "coffee": 7, "cup": 9, "teapot": 39}

engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})


class Table(DeclarativeBase):
    """The shop's."""


class Article(Table):
    """What is sold."""

    __tablename__ = "article"
    sku: Mapped[str] = mapped_column(primary_key=True)
    price: Mapped[int]


class Order(Table):
    """What was bought."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str] = mapped_column(index=True)
    sku: Mapped[str] = mapped_column(ForeignKey("article.sku"))
    quantity: Mapped[int]
    total: Mapped[int]


def fill() -> None:
    """Make the tables."""
    Table.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(Article(sku=sku, price=price) for sku, price in PRICES.items())
        session.commit()


def article(sku: str) -> Article | None:
    """One article."""
    with Session(engine) as session:
        return session.get(Article, sku)


def buy(customer: str, sku: str, quantity: int, total: int) -> int:
    """Write an order down; its number."""
    with Session(engine) as session:
        order = Order(customer=customer, sku=sku, quantity=quantity, total=total)
        session.add(order)
        session.commit()
        return order.id


def orders_of(customer: str) -> list[dict[str, Any]]:
    """The last orders of a customer, with the price of each article."""
    with Session(engine) as session:
        found = session.scalars(
            select(Order).where(Order.customer == customer).order_by(Order.id.desc()).limit(20)
        ).all()
        if faults.planted("n_plus_one"):
            prices = {}
            for order in found:
                one = select(Article.price).where(Article.sku == order.sku)
                prices[order.id] = session.scalar(one)
        else:
            all_prices = select(Article.sku, Article.price)
            # Not dict(...): a result has keys(), so dict() would take it for a mapping.
            by_sku = {sku: price for sku, price in session.execute(all_prices).tuples()}  # noqa: C416
            prices = {order.id: by_sku[order.sku] for order in found}
        return [
            {"id": order.id, "sku": order.sku, "total": order.total, "price": prices[order.id]}
            for order in found
        ]


def search(word: str) -> list[str]:
    """Articles with a word in their name."""
    if len(word) < 2 and faults.planted("slow_search"):
        time.sleep(1.2)
    with Session(engine) as session:
        return list(session.scalars(select(Article.sku).where(Article.sku.contains(word))))
