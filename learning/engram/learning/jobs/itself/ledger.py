"""What the jobs cost in an hour, told after it: from the ledger that `learn` keeps anyway."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from engram.exporters.ask import ask
from engram.exporters.errors import EngramError
from engram.exporters.home import Home
from engram.exporters.itself.notes import Taken
from engram.exporters.itself.settings import HOUR, PACE, Settings
from engram.exporters.itself.told import request
from engram.exporters.signals import Signal
from engram.learning.jobs.runner import Run, Runner
from engram.learning.jobs.turns import turn

_LOG: Final = logging.getLogger("engram.learn")

_WORTH_CPU_S: Final = 10.0
"""Hours in which all jobs together took less are not told of: those of an idle home."""


class Hourly:
    """Tells of each hour once, in the life of a process; told again, it is the same record."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._settings = Settings(home)
        self._told = 0

    def tell(self, runs: Sequence[Run], now_ns: int) -> bool:
        """Tell of the last whole hour; whether there was something."""
        hour = now_ns // HOUR - 1
        if hour <= self._told:
            return False
        taken = of_hour(runs, hour)
        self._told = hour
        if taken is None:
            return False
        for job in {key.split(".")[1] for key in taken.values}:
            pace = self._settings.value(PACE + job, 1.0, hour * HOUR)
            taken.values[f"job.{job}.pace"] = pace
        body = request("learn", (hour + 1) * HOUR, taken)
        try:
            ask(self._home, "append", signal=str(Signal.LOGS), body=body, trusted=True, itself=True)
        except EngramError as error:
            _LOG.debug("what the jobs cost is not told: %s", error)
        return True


def of_hour(runs: Sequence[Run], hour: int) -> Taken | None:
    """The sums of the runs that began in an hour; None when they are not worth telling."""
    values: dict[str, float | int] = defaultdict(float)
    for run in runs:
        if int(run.began * 1e9) // HOUR != hour or "." in run.job:
            continue
        at = f"job.{run.job}"
        values[f"{at}.runs"] += 1
        values[f"{at}.cpu_s"] += run.cpu_seconds
        values[f"{at}.over"] += int(run.over_budget)
        values[f"{at}.failed"] += int(bool(run.error) and not run.over_budget)
    cpu = sum(value for name, value in values.items() if name.endswith(".cpu_s"))
    over = sum(value for name, value in values.items() if name.endswith(".over"))
    return Taken(HOUR / 1e9, dict(values)) if cpu >= _WORTH_CPU_S or over else None


def due(runner: Runner, settings: Settings, now_ns: int) -> list[str]:
    """The jobs whose turn it is, of which Engram may let some run less often."""
    return turn(runner, now_ns, lambda job: settings.value(PACE + job, 1.0, now_ns))


__all__ = ["Hourly", "due", "of_hour"]
