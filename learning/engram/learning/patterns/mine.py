"""From messages to patterns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from engram.learning.patterns.clusters import clusters
from engram.learning.patterns.masks import masked


@dataclass(frozen=True, slots=True)
class Patterns:
    """The patterns of some messages."""

    templates: list[str]
    """Distinct, sorted; values are `<*>`."""

    of: list[int]
    """For each message, which template is its."""


def mine(messages: Iterable[str | None]) -> Patterns:
    """The pattern of each message; those without text are the empty template."""
    frame = pl.DataFrame({"message": pl.Series(messages, dtype=pl.String).fill_null("")})
    # Repeated messages are masked once.
    distinct = frame.unique("message", maintain_order=False).with_columns(
        pl.col("message").map_batches(masked, return_dtype=pl.String).alias("masked")
    )
    found = clusters(distinct["masked"].unique().to_list())
    templates = sorted(set(found.values()))
    number = {template: at for at, template in enumerate(templates)}
    coded = distinct.with_columns(
        pl.col("masked").replace_strict(
            list(found), [number[one] for one in found.values()], return_dtype=pl.UInt32
        ).alias("of")
    )  # fmt: skip
    joined = frame.join(coded, on="message", how="left", maintain_order="left")
    return Patterns(templates, joined["of"].to_list())


def pattern_id(template: str, scope: str = "") -> str:
    """The id of a pattern: a hash of its template, and of what it is looked for in."""
    return hashlib.blake2b(f"{scope}\0{template}".encode(), digest_size=8).hexdigest()


__all__ = ["Patterns", "mine", "pattern_id"]
