"""What a call is called, and what makes two calls the same one.

`operation` is the call without its values; `exact` is the call with all of them, or null where they
cannot be seen: a statement with placeholders does not say what stood in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import polars as pl

LENGTH: Final = 300
"""Characters of an operation that are kept."""

_LITERALS: Final = r"'(?:[^']|'')*'|\b\d+(?:\.\d+)?\b"
_LISTS: Final = r"\(\s*\?(?:\s*,\s*\?)*\s*\)"
_PLACEHOLDER: Final = r"(?:^|[^\w])(?:\?|%s|%\(\w+\)s|\$\d+|:\w+|@\w+)"
_QUERY_KINDS: Final = (
    r"^\s*(?:select|with)\b|^\s*(?:get|mget|hget|hgetall|find|exists|zrange|lrange)\b"
)
_NO_QUERY: Final = (
    r"^\s*(?:begin|commit|rollback|savepoint|release|set|show|ping|connect|start|pragma|fetch|"
    r"create|drop|alter|use|close|declare|discard|explain|auth|select 1\s*;?\s*$)\b"
)
_WRITES: Final = r"\b(?:insert|update|delete|merge|replace|for update|nextval|now|random)\b"

_ID: Final = r"/(?:[0-9a-fA-F]{8}-[0-9a-fA-F-]{27,}|[^/?#]*\d[^/?#]*|[^/?#]{24,})"
_PAGES: Final = (
    r"(?i)[?&](?:page|page_?token|next_?token|cursor|offset|after|before|skip|start|from|since|"
    r"marker|continue|continuation|position)="
)


def named(calls: pl.DataFrame) -> pl.DataFrame:
    """Calls with `operation`, `exact`, `reads`, `paged` and `counts`.

    `reads`: it changes nothing, as far as its words say. `paged`: one page of many. `counts`: it
    does work (no start or end of a transaction, no connecting).
    """
    import polars as pl

    db, http = pl.col("family") == "db", pl.col("family") == "http"
    text = pl.col("statement").str.replace_all(r"\s+", " ").str.strip_chars()
    masked = text.str.replace_all(_LITERALS, "?").str.replace_all(_LISTS, "(?)")
    path = pl.col("url").str.replace(r"^[a-zA-Z][\w+.-]*://[^/?#]*", "").str.replace(r"[?#].*$", "")
    template = pl.coalesce("template", path.str.replace_all(_ID, "/{id}"))
    said = pl.coalesce("statement", "name").str.to_lowercase()
    hidden = pl.col("statement").is_null() | text.str.contains(_PLACEHOLDER)
    return calls.with_columns(
        pl.when(db)
        .then(pl.coalesce(masked, "name"))
        .when(http)
        .then(
            pl.concat_str(
                pl.col("method"), pl.lit(" "), pl.col("host").fill_null(""), template.fill_null("")
            )
        )
        .otherwise(pl.col("rpc"))
        .str.slice(0, LENGTH)
        .alias("operation"),
        pl.when(db & (~hidden | pl.col("parameters").is_not_null()))
        .then(pl.concat_str(text, pl.col("parameters").fill_null(""), separator=" "))
        .when(http)
        .then(pl.concat_str("method", pl.lit(" "), "url"))
        .alias("exact"),
        pl.when(db)
        .then(said.str.contains(_QUERY_KINDS) & ~said.str.contains(_WRITES))
        .when(http)
        .then(pl.col("method").is_in(["GET", "HEAD"]))
        .otherwise(pl.col("rpc").str.contains(r"(?i)/(?:get|list|find|search|query|fetch|read)"))
        .alias("reads"),
        (http & pl.col("url").str.contains(_PAGES)).fill_null(False).alias("paged"),
        (~db | (pl.col("statement").is_not_null() & ~said.str.contains(_NO_QUERY))).alias("counts"),
    )


__all__ = ["LENGTH", "named"]
