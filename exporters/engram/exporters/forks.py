"""A forked child has copies of its parent's descriptors; those that are not its own are closed.

A copy of the home's lock would keep the home locked after the parent's death, and a copy of a
listening socket would let others connect to nobody.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Parental(Protocol):
    """Something with descriptors that only the process which opened them may use."""

    def after_fork_in_child(self) -> None:
        """Close the copies, quietly: no lock can be trusted, no thread runs, nobody may notice."""
        ...


_known: weakref.WeakSet[Parental] = weakref.WeakSet()


def leave_to_parent(thing: Parental) -> None:
    """Tell `thing` in every process that will be forked from this one."""
    _known.add(thing)


def _in_child() -> None:
    for thing in list(_known):
        thing.after_fork_in_child()


os.register_at_fork(after_in_child=_in_child)

__all__ = ["Parental", "leave_to_parent"]
