"""Forecasts: how well they do on series that are kept back, and how early a limit is foreseen.

    python bench/learning/forecast.py FOLDER

FOLDER has `real*/*.csv` (timestamp,value). Forecasts: hourly means, the last three days of each
series kept back one by one, 24 hours ahead; MASE is the mean absolute error over that of "as 24
hours before" in the history; coverage is the share of values within lo90..hi90. The same on series
made here, which nothing was chosen by.
"""

from __future__ import annotations

import csv
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from engram.learning.forecast import forecast

AHEAD = 24


def read(path: Path, step_s: int) -> np.ndarray:
    """Means by `step_s`, NaN where there is nothing."""
    with path.open() as file:
        rows = [
            (
                datetime.fromisoformat(row["timestamp"]).replace(tzinfo=UTC).timestamp(),
                float(row["value"]),
            )
            for row in csv.DictReader(file)
        ]
    times, values = np.array(rows).T
    at = (times // step_s).astype(int)
    at -= at.min()
    count = np.bincount(at)
    with np.errstate(invalid="ignore"):
        return np.bincount(at, values) / count


def hourly(rng: np.random.Generator, kind: int) -> np.ndarray:
    """A series of four weeks: seasonal, weekly, wandering, stepped, spiky, ramping by turns."""
    n = 24 * 28
    at = np.arange(n)
    noise = rng.normal(size=n)
    day = np.sin(at * 2 * np.pi / 24 + rng.uniform(0, 6))
    week = np.where(at // 24 % 7 < 5, 1.0, 0.3)
    series = {
        0: 100 + 20 * day + 4 * noise,
        1: (100 + 40 * day) * week + 5 * noise,
        2: 1000 + np.cumsum(noise) * 5,
        3: 50 + 30 * (at > rng.integers(n // 2, n - 100)) + 10 * day + 3 * noise,
        4: np.exp(rng.normal(size=n) * 0.7 + day) * 30,
        5: 10 + at * rng.uniform(0.02, 0.2) + 3 * day + noise,
    }
    return series[kind % 6]


def score(named: list[tuple[str, np.ndarray]], verbose: bool = False) -> str:
    """In one line."""
    errors, inside, spent = [], [], 0.0
    for name, values in named:
        of_series = []
        for back in (3, 2, 1):
            cut = len(values) - AHEAD * back
            history, truth = values[:cut], values[cut : cut + AHEAD]
            began = time.process_time()
            said = forecast(history, 3600, AHEAD)
            spent += time.process_time() - began
            good = np.isfinite(truth)
            scale = np.nanmean(np.abs(history[24:] - history[:-24])) or 1e-9
            of_series.append(np.mean(np.abs(said.mean - truth)[good]) / scale)
            inside.append(np.mean(((said.lo90 <= truth) & (truth <= said.hi90))[good]))
        errors += of_series
        if verbose:
            print(f"  {name:44s} {np.mean(of_series):.3f}")
    return (
        f"MASE mean {np.mean(errors):.3f}, median {np.median(errors):.3f}; "
        f"coverage {np.mean(inside):.3f}; {len(errors) / spent:,.0f} forecasts per CPU-second"
    )


def main() -> None:
    folder = Path(sys.argv[1])
    real = [(path.stem, read(path, 3600)) for path in sorted(folder.glob("real*/*.csv"))]
    real = [(name, values) for name, values in real if len(values) >= 240]
    print(f"{len(real)} real series: {score(real, '-v' in sys.argv)}")
    rng = np.random.default_rng(11)
    kinds = ("day", "day and week", "random walk", "step", "skewed", "ramp")
    for kind, name in enumerate(kinds):
        series = [(name, hourly(rng, kind)) for _ in range(30)]
        print(f"made, {name:14s} {score(series)}")


if __name__ == "__main__":
    main()
