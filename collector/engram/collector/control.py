"""The command line's end of the control socket of `collect`."""

from engram.exporters.ask import NotRunning, ask

__all__ = ["NotRunning", "ask"]
