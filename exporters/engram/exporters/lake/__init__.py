"""The lake: the one module that knows DuckDB, DuckLake, their versions and attach strings."""

from engram.exporters.lake.attach import attach_read_only

__all__ = ["attach_read_only"]
