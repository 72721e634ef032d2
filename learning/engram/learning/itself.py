"""What Engram may learn about itself and change of itself: the extension `self_optimization`.

Settings, so nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from engram.exporters.itself.settings import BOUNDS, PACE, bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Itself:
    """Settings of the `self_optimization` extension."""

    record: bool = True
    """Whether roles tell what they do, once a minute, apart from the user's telemetry."""

    change: bool = True
    """Whether settings may be tried and changed; without `record` none is."""

    keep: tuple[str, ...] = ()
    """Settings that are left as they are: `compact_interval`, `pace.<job>`."""

    def problems(self) -> Iterator[str]:
        """What cannot be meant."""
        for name in self.keep:
            if bounds(name) is None:
                known = ", ".join(f"{one}<job>" if one == PACE else one for one in BOUNDS)
                yield f"keep: no setting {name!r} is ever changed; there is: {known}"

    @property
    def changes(self) -> bool:
        """Whether anything may be changed at all."""
        return self.record and self.change

    def may_change(self, setting: str) -> bool:
        """Whether this one may."""
        return self.changes and setting not in self.keep and bounds(setting) is not None


OFF = Itself(record=False, change=False)
"""Where the extension does not run."""

__all__ = ["OFF", "Itself"]
