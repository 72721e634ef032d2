"""Limit crossings foreseen: leaks of five shapes added to real series, and the series untouched.

    python bench/learning/crossing.py FOLDER

Series of `real*/*.csv` (a point each 5 minutes, the first 2,000). The limit lies twice as far above
the 99 % quantile as that above the median; a leak begins at point 1,000 and takes 800 points from
the median to the limit. Asked each hour; an alert is a probability of one half or more. Recall and
lead are up to the first hour whose median is over the limit; a false day is one of an untouched
series with an alert.
"""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path

import numpy as np

from engram.learning.crossing import crossing

POINTS, BEGIN, LASTS, DAY, HOUR, STEP_S = 2000, 1000, 800, 288, 12, 300


def leaks() -> dict[str, np.ndarray]:
    """Shares of the way from the median to the limit, from the beginning of the leak on."""
    at = np.arange(POINTS - BEGIN) / LASTS
    stairs = np.cumsum(np.where(np.arange(len(at)) % 250 < 150, 1, 0)) / 150 * 250 / LASTS
    sawtooth = at * 1.2 - 0.2 * (at * 4 % 1)
    return {
        "ramp": at,
        "ramp and a day": at + 0.15 * np.sin(np.arange(len(at)) * 2 * np.pi / DAY),
        "plateaus": stairs / 1.5,
        "reversals": sawtooth,
        "faster and faster": at**2,
    }


def alerts(values: np.ndarray, limit: float, until: int) -> list[int]:
    """Points at which there is one."""
    return [
        at
        for at in range(2 * DAY, until, HOUR)
        if crossing(values[:at], STEP_S, limit).probability >= 0.5
    ]


def any_noise(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Two weeks of hours of which nothing leaks: noise of any memory, a day, a step, skew."""
    n = 14 * 24
    noise, rho = rng.normal(size=n), rng.uniform(0, 0.98)
    for at in range(1, n):
        noise[at] += rho * noise[at - 1]
    noise /= noise.std()
    if rng.random() < 0.3:
        noise = np.exp(noise)
    day = rng.uniform(0, 3) * np.sin(np.arange(n) * 2 * np.pi / 24 + rng.uniform(0, 6))
    step = (np.arange(n) >= rng.integers(n)) * rng.choice([0, 0, 2, 5])
    return noise, day, step


def main() -> None:
    series = []
    for path in sorted(Path(sys.argv[1]).glob("real*/*.csv")):
        with path.open() as file:
            values = np.array([float(row["value"]) for row in csv.DictReader(file)])
        if len(values) >= POINTS:
            series.append((path.stem, values[:POINTS]))
    false, days, asked, spent = 0, 0.0, 0, 0.0
    for name, values in series:
        high, middle = np.quantile(values, 0.99), np.median(values)
        limit = high + 2 * (high - middle) + 1e-6
        over = next(
            (at for at in range(0, POINTS, HOUR) if np.median(values[at : at + HOUR]) >= limit),
            POINTS,
        )
        began = time.process_time()
        found = {at // DAY for at in alerts(values, limit, over)}
        spent += time.process_time() - began
        asked += (over - 2 * DAY) // HOUR
        false += len(found)
        days += (over - 2 * DAY) / DAY
        if found and "-v" in sys.argv:
            print(f"  {name}: {len(found)} false days")
    print(
        f"{len(series)} series, {days:.0f} days: {100 * false / days:.2f} false days per 100; "
        f"{asked / spent:,.0f} questions per CPU-second"
    )
    rng = np.random.default_rng(13)
    made = [np.sum(any_noise(rng), axis=0) for _ in range(300)]
    for far in (2.0, 0.5):
        false = 0
        for values in made:
            high = np.quantile(values, 0.99)
            limit = max(high + far * (high - np.median(values)), values.max() + 1e-6)
            said = [
                crossing(values[:at], 3600, limit).probability >= 0.5 for at in range(48, 14 * 24)
            ]
            false += int(np.reshape(said, (-1, 24)).any(axis=1).sum())
        print(
            f"{len(made)} made series, {12 * len(made)} days, limit {far} times as far above the "
            f"99 % quantile: {false / 36:.2f} false days per 100"
        )
    every = []
    for shape, way in leaks().items():
        leads = []
        for _, values in series:
            high, middle = np.quantile(values, 0.99), np.median(values)
            limit = high + 2 * (high - middle) + 1e-6
            leaking = values.copy()
            leaking[BEGIN:] += way * (limit - middle)
            over = [
                at
                for at in range(BEGIN, POINTS - HOUR)
                if np.median(leaking[at : at + HOUR]) >= limit
            ]
            if over:
                before = [at for at in alerts(leaking, limit, over[0]) if at > BEGIN]
                leads.append((over[0] - before[0]) / HOUR if before else 0.0)
        every += leads
        print(
            f"{shape:18s} {len(leads)} leaks: recall {np.mean(np.array(leads) > 0):.3f}, "
            f"median lead {np.median(leads):.1f} h, "
            f"12 h or more {np.mean(np.array(leads) >= 12):.3f}"
        )
    print(
        f"all: recall {np.mean(np.array(every) > 0):.3f}, median lead {np.median(every):.1f} h, "
        f"12 h or more {np.mean(np.array(every) >= 12):.3f}"
    )


if __name__ == "__main__":
    main()
