"""Slices of rebuilt memories, on their way from who rebuilds them to the one writer of the home.

A slice is an Arrow file in the home: the control socket carries its name and no rows.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from engram.exporters.errors import BadRequest
from engram.exporters.home import Home

if TYPE_CHECKING:
    import polars as pl

_NAME: Final = re.compile(r"slice-\d{6}\.arrow")


def write_slice(home: Home, number: int, changes: pl.DataFrame) -> str:
    """Write a slice; its name. One slice is under way at a time, so the one before it goes."""
    (home.rederive / f"slice-{number - 1:06d}.arrow").unlink(missing_ok=True)
    path: Path = home.rederive / f"slice-{number:06d}.arrow"
    changes.write_ipc(path)
    return path.name


def read_slice(home: Home, name: str) -> pl.DataFrame:
    """The slice of that name, with the columns of `engram.exporters.rederive.CHANGES`.

    Raises:
        BadRequest: there is none.
    """
    import polars as pl

    from engram.exporters.rederive import CHANGES

    path = home.rederive / name
    if not _NAME.fullmatch(name) or not path.is_file():
        raise BadRequest(f"no slice {name!r} in {home.rederive}")
    try:
        changes = pl.read_ipc(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BadRequest(f"the slice {path} cannot be read: {error}") from error
    if dict(changes.schema) != CHANGES:
        raise BadRequest(f"the slice {path} was made by another version of Engram")
    return changes
