"""How often something is said to keep failing that fails less than one in ten.

    python bench/learning/failing.py [--weeks 3]

500 things in 50 services run 2, 10, 50 or 300 times a day; each fails at 0.3, 1 or 1.7 times a base
rate. Prints how many of them are named in a week, of any rate. Nothing above one in ten is there.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from typing import Any, Final

import duckdb
import polars as pl

from engram.learning.jobs import Window
from engram.learning.jobs.failing import DAY, WEEK, failing

_BEGIN: Final = 1_790_035_200_000_000_000
_RUNS: Final = "SELECT * FROM runs WHERE begun >= $1 AND begun < $2"


def week(dice: random.Random, base: float) -> int:
    """Statements of one week."""
    rows = []
    for thing in range(500):
        rate = base * dice.choice((0.3, 1, 1.7))
        for day in range(7):
            for _ in range(dice.choice((2, 10, 50, 300))):
                when = _BEGIN + day * DAY + dice.randrange(DAY)
                rows.append((f"s{thing % 50}", f"n{thing}", when, dice.random() < rate, len(rows)))
    known = pl.DataFrame(rows, schema=["service", "name", "begun", "failed", "id"], orient="row")
    with duckdb.connect() as lake:
        lake.register("known", known.to_arrow())
        lake.execute(
            "CREATE TABLE runs AS SELECT * REPLACE ('m' || id AS id), begun AS moment, "
            "NULL::VARCHAR AS trace_id, begun AS recorded_at, NULL::VARCHAR AS why FROM known"
        )

        def read(sql: str, values: Sequence[Any] = ()) -> pl.DataFrame:
            return lake.execute(sql, list(values)).pl()

        window = Window(_BEGIN, _BEGIN + WEEK)
        found = failing(read, window, _RUNS, job="bench", kind="thing", title="{name}")
        return len(list(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weeks", type=int, default=3)
    weeks = parser.parse_args().weeks
    for base in (0.0, 0.01, 0.03, 0.05):
        dice = random.Random(1)
        said = sum(week(dice, base) for _ in range(weeks))
        print(f"base rate {base:.0%}: {said / weeks:.1f} of 500 named in a week")


if __name__ == "__main__":
    main()
