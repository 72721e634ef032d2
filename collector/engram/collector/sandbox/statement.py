"""What a stranger may ask: one SELECT (or the EXPLAIN of one) over the lake's own tables.

DuckDB parses, and the tree it gives is walked: every table must be one of the lake's or a CTE, and
every function one that computes from its arguments. What is not known to be harmless is refused, so
that a function of a later DuckDB is refused until somebody has looked at it. DuckDB's settings
(no file, no network, locked) hold besides; here it is decided what may be read of the database.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from engram.exporters.errors import BadRequest

if TYPE_CHECKING:
    import duckdb

TABLE_FUNCTIONS: Final = frozenset(
    {"unnest", "range", "generate_series", "repeat", "repeat_row", "json_each", "json_tree"}
)
"""Those of DuckDB that make rows of their arguments. The lake's own macros come to them."""

DENIED: Final = frozenset(
    {
        # Settings, environment, and what others do.
        "current_setting", "getenv", "getvariable", "current_query", "current_query_id",
        "current_connection_id", "current_transaction_id", "txid_current", "in_search_path",
        "version", "stats", "parse_duckdb_log_message",
        # They change something, or only wait.
        "nextval", "currval", "setseed", "write_log", "sleep_ms",
        # SQL in a string would not be looked at.
        "query", "query_table", "json_execute_serialized_sql", "json_serialize_plan",
        "json_deserialize_sql",
    }
)  # fmt: skip
"""Scalar functions and macros that a stranger may not call."""

DENIED_PREFIXES: Final = (
    "duckdb_", "pragma_", "ducklake_", "sqlite_", "parquet_", "read_", "pg_", "inet_", "has_",
    "__internal_",
)  # fmt: skip

HIDDEN_COLUMNS: Final = frozenset(
    {"filename", "file_row_number", "file_index", "snapshot_id", "rowid"}
)
"""Virtual columns of DuckLake: where the files are, and what was deleted."""

_LAKE: Final = frozenset({("", ""), ("", "main"), ("", "lake"), ("lake", ""), ("lake", "main")})
"""How a table of the lake may be qualified."""

_CTE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EXPLAIN: Final = re.compile(r"\s*explain\b(.*)", re.IGNORECASE | re.DOTALL)
_COMMENT: Final = re.compile(r"\A(?:\s+|--[^\n]*(?:\n|\Z)|/\*.*?\*/)*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Known:
    """The names that a statement may use, lower case."""

    tables: frozenset[str]
    functions: frozenset[str]
    table_functions: frozenset[str]


def known(connection: duckdb.DuckDBPyConnection) -> Known:
    """What there is in this lake and this DuckDB."""

    def names(sql: str) -> frozenset[str]:
        return frozenset(str(row[0]).lower() for row in connection.execute(sql).fetchall())

    tables = names(
        "SELECT table_name FROM information_schema.tables "
        "WHERE table_catalog = 'lake' AND table_schema = 'main'"
    )
    functions = names(
        "SELECT DISTINCT function_name FROM duckdb_functions() "
        "WHERE database_name = 'system' AND function_type IN ('scalar', 'aggregate', 'macro')"
    )
    macros = names(
        "SELECT DISTINCT function_name FROM duckdb_functions() "
        "WHERE database_name = 'lake' AND function_type = 'table_macro'"
    )
    allowed = {one for one in functions if not _denied(one)} | {"unnest", "grouping", "coalesce"}
    return Known(tables, frozenset(allowed), frozenset(TABLE_FUNCTIONS | macros))


def _denied(name: str) -> bool:
    return name in DENIED or name.startswith(DENIED_PREFIXES)


def check(connection: duckdb.DuckDBPyConnection, text: str, names: Known) -> str:
    """The statement that may run.

    Raises:
        BadRequest: it may not; the text says why and what to do.
    """
    import duckdb

    try:
        statements = connection.extract_statements(text)
    except duckdb.Error as error:
        raise BadRequest(str(error)) from error
    if len(statements) != 1:
        raise BadRequest(
            f"one statement at a time; this is {len(statements) or 'none'} "
            "(a bare PIVOT is two: write it as a subquery, with its values: PIVOT ... IN (...))"
        )
    kind = statements[0].type
    if kind not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
        raise BadRequest(
            f"only SELECT can be asked here, and this is {kind.name.lower()}; nothing is changed "
            "by SQL: telemetry comes in by OTLP"
        )
    inner = text
    if kind == duckdb.StatementType.EXPLAIN:
        found = _EXPLAIN.fullmatch(_COMMENT.sub("", text, count=1))
        inner = found[1] if found else ""
        if found and re.match(r"\s*\(?\s*analy[sz]e\b", inner, re.IGNORECASE):
            raise BadRequest("EXPLAIN ANALYZE runs the query; ask EXPLAIN, or the query itself")
    nodes = list(_nodes(_tree(connection, inner)))
    ctes = frozenset(_ctes(nodes))
    for node in nodes:
        _look(node, names, ctes)
    return text


def _tree(connection: duckdb.DuckDBPyConnection, text: str) -> Any:
    """The parsed statement, as DuckDB tells it."""
    import duckdb

    try:
        row = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [text]).fetchone()
        tree: dict[str, Any] = json.loads(row[0]) if row else {"error": True}
    except duckdb.Error as error:
        raise BadRequest(str(error)) from error
    except RecursionError as error:
        raise BadRequest("this query is nested too deeply; write it with CTEs (WITH)") from error
    statements = tree.get("statements", [])
    if tree.get("error") or len(statements) != 1:
        raise BadRequest(
            "only a SELECT can be asked here (also FROM, VALUES, DESCRIBE table, SHOW TABLES, and "
            f"EXPLAIN of a SELECT): {tree.get('error_message') or 'this is none'}"
        )
    if statements[0].get("named_param_map"):
        raise BadRequest("a query here has no parameters; write the values into it")
    return statements[0]


def _nodes(root: Any) -> Iterator[dict[str, Any]]:
    """Every object of the tree; a loop, for a tree may be deep."""
    waiting = [root]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)


def _ctes(nodes: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The names of all CTEs.

    A CTE is then a table by its name anywhere in the statement. Scopes need not be followed,
    because a name that could mean anything outside its scope is refused as the name of a CTE:
    DuckDB's own views all begin with a denied prefix, and a file has a dot.
    """
    for node in nodes:
        for entry in (node.get("cte_map") or {}).get("map") or ():
            name = str(entry["key"])
            if not _CTE.fullmatch(name) or _denied(name.lower()):
                raise BadRequest(
                    f"a CTE cannot be called {name!r} here; give it a plain name of its own"
                )
            yield name.lower()


def _look(node: dict[str, Any], names: Known, ctes: frozenset[str]) -> None:
    """Refuse what is in this one node, if anything is."""
    kind, of = node.get("type"), node.get("class")
    if kind == "BASE_TABLE":
        _look_at_table(node, names, ctes)
    elif kind == "TABLE_FUNCTION":
        called = str(node["function"].get("function_name")).lower()
        if called not in names.table_functions:
            raise _no(f"{called}()", "it is no function of the lake", names.table_functions)
    elif kind == "SHOW_REF":
        shown = str(node.get("table_name") or "").strip('"')
        if shown not in ("", "tables"):
            raise BadRequest(f"SHOW {shown} is not for here; SHOW TABLES is")
    elif of in ("FUNCTION", "WINDOW"):
        called = str(node.get("function_name")).lower()
        # The node inside a table function comes here too; it was looked at above.
        if called not in names.functions and called not in names.table_functions:
            raise _no(f"{called}()", "only functions that compute from their arguments are", ())
    elif of == "COLUMN_REF":
        _look_at_columns(node.get("column_names") or ())
    _look_at_columns(node.get("using_columns") or ())


def _look_at_table(node: dict[str, Any], names: Known, ctes: frozenset[str]) -> None:
    table = str(node.get("table_name")).lower()
    catalog = str(node.get("catalog_name") or "").lower()
    schema = str(node.get("schema_name") or "").lower()
    if node.get("at_clause"):
        raise BadRequest("AT is not for here: what was taken out of the lake stays out")
    if not catalog and not schema and table in ctes:
        return
    if (catalog, schema) in _LAKE and table in names.tables:
        return
    from difflib import get_close_matches

    said = ".".join(one for one in (catalog, schema, table) if one)
    near = get_close_matches(table, names.tables, n=1)
    raise BadRequest(
        f"there is no table {said!r} here"
        + (f"; did you mean {near[0]}?" if near else "; SHOW TABLES lists what there is")
    )


def _look_at_columns(columns: Iterable[Any]) -> None:
    for column in columns:
        if str(column).lower() in HIDDEN_COLUMNS:
            raise BadRequest(f"the column {column} is not for here: it tells of files and versions")


def _no(what: str, why: str, allowed: Iterable[str]) -> BadRequest:
    more = ", ".join(sorted(allowed))
    return BadRequest(f"{what} is not allowed here: {why}" + (f"; there are {more}" * bool(more)))
