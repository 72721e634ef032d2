"""A subset of OTTL, the OpenTelemetry Collector's transformation language.

`parse` makes a tree of a text, `compile` makes functions of a tree that read and edit OTLP.
Whatever is not in the subset is an `OttlError` that says the column; docs/configuration.md lists
what is in it. The text of a condition or statement is the operator's, never a sender's.
"""

from . import values
from .compile import (
    Condition,
    Edit,
    compile_condition,
    compile_statement,
    contexts_of,
    deepest,
)
from .errors import OttlError, RunError
from .rows import CONTEXTS, Row, rows

__all__ = [
    "CONTEXTS",
    "Condition",
    "Edit",
    "OttlError",
    "Row",
    "RunError",
    "compile_condition",
    "compile_statement",
    "contexts_of",
    "deepest",
    "rows",
    "values",
]
