"""Anomalies of a series: NAB's score with one configuration and one threshold for all files.

    python bench/learning/anomalies.py NAB_FOLDER

NAB_FOLDER holds `data/*/*.csv` and `labels/combined_windows.json`. Scores follow the definitions of
NAB: the earliest alarm in a window counts most, one after it or without one costs, the first 15 %
(at most 750 points) are not judged, and the threshold is the best one over all files. 0 is to say
nothing, 100 perfect. Also on series made here, whose events are known.
"""

from __future__ import annotations

import csv
import json
import sys
import time
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engram.learning.anomalies import anomaly_scores

PROFILES = {"standard": (0.11, 1.0), "low FP": (0.22, 1.0), "low FN": (0.11, 2.0)}
Floats = NDArray[np.float64]
Windows = list[tuple[int, int]]


def main() -> None:
    folder = Path(sys.argv[1])
    series = load(folder)
    began = time.process_time()
    scores = [anomaly_scores(times, values) for times, values, _ in series]
    spent = time.process_time() - began
    points = sum(len(one) for one in scores)
    windows = [one for *_, one in series]
    said = ", ".join(f"{name} {nab(scores, windows, *of)[0]:.1f}" for name, of in PROFILES.items())
    print(f"{len(series)} files, {sum(map(len, windows))} windows: {said}")
    print(f"threshold {nab(scores, windows, 0.11, 1.0)[1]:.3f}; {points / spent:,.0f} points/s")
    for seed in range(3):
        made = [planted(np.random.default_rng(1000 * seed + n), n) for n in range(40)]
        of_made = [anomaly_scores(times, values) for times, values, _ in made]
        best, at = nab(of_made, [one for *_, one in made], 0.11, 1.0)
        print(f"made here, seed {seed}: standard {best:.1f}, threshold {at:.3f}")


def load(folder: Path) -> list[tuple[Floats, Floats, Windows]]:
    """Times, values and windows as positions, of every labelled file that is there."""
    found = []
    labels = json.loads((folder / "labels/combined_windows.json").read_text())
    for name, windows in sorted(labels.items()):
        if not (folder / "data" / name).exists():
            continue
        with (folder / "data" / name).open() as source:
            rows = list(csv.DictReader(source))
        times = np.array([_epoch(row["timestamp"]) for row in rows])
        values = np.array([float(row["value"]) for row in rows])
        spans = []
        for first, last in windows:
            inside = np.flatnonzero((times >= _epoch(first)) & (times <= _epoch(last)))
            spans.append((int(inside[0]), int(inside[-1])))
        found.append((times, values, spans))
    return found


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text + "+00:00").timestamp()


def nab(scores: list[Floats], windows: list[Windows], fp: float, fn: float) -> tuple[float, float]:
    """The normalised score at the best threshold, and that threshold."""
    alarms: list[tuple[float, int, float]] = []
    count = 0
    for of, spans in zip(scores, windows, strict=True):
        worth, owner = _worth(len(of), spans, fp, count)
        start = int(min(0.15 * len(of), 750))
        alarms += zip(
            of[start:].tolist(), owner[start:].tolist(), worth[start:].tolist(), strict=True
        )
        count += len(spans)
    alarms.sort(key=lambda one: -one[0])
    best_of = [-fn] * count
    total = top = -fn * count
    limit = 1.1
    for at, (score, owner_, gain) in enumerate(alarms):
        if owner_ < 0:
            total += gain
        elif gain > best_of[owner_]:
            total += gain - best_of[owner_]
            best_of[owner_] = gain
        if total > top and (at + 1 == len(alarms) or alarms[at + 1][0] < score):
            top, limit = total, score
    return 100 * (top + fn * count) / (count + fn * count), limit


def _worth(size: int, spans: Windows, fp: float, first: int) -> tuple[Floats, NDArray[np.int64]]:
    """What an alarm at each point is worth, and the window it is in (-1: none)."""
    at = np.arange(size)
    worth, owner = np.full(size, -fp), np.full(size, -1)
    for left, right in spans:
        width = right - left + 1
        after = at > right
        worth[after] = fp * _sigmoid((at[after] - right) / max(width - 1, 1))
    for number, (left, right) in enumerate(spans):
        inside = slice(left, right + 1)
        place = -(right - at[inside] + 1) / (right - left + 1)
        worth[inside] = _sigmoid(place) / _sigmoid(np.array([-1.0]))[0]
        owner[inside] = first + number
    return worth, owner


def _sigmoid(place: Floats) -> Floats:
    return np.where(place > 3, -1.0, 2 / (1 + np.exp(5 * np.minimum(place, 4))) - 1)


def planted(random: np.random.Generator, kind: int) -> tuple[Floats, Floats, Windows]:
    """A series of 14 days every 5 minutes, with up to two events in its second half."""
    size = 4032
    at = np.arange(size)
    daily = random.choice([0.0, 1.0, 4.0]) * np.sin(2 * np.pi * at / 288 + random.uniform(0, 6))
    noise = np.zeros(size)
    for step, shock in enumerate(random.standard_normal(size)):
        noise[step] = random.choice([0.5]) * noise[step - 1] * (kind % 2) + shock
    values = 50 + daily + noise
    if kind % 5 == 4:
        values = np.exp(values / 20)
    spans = []
    places = [random.integers(1200, 2300), random.integers(2700, 3700)][: kind % 3]
    for place in places:
        length, scale = int(random.integers(1, 60)), float(np.std(values))
        event = slice(place, place + length)
        change = random.choice(["spike", "shift", "noise", "flat"])
        if change == "spike":
            values[place : place + 1 + length // 20] += 6 * scale
        elif change == "shift":
            values[place:] += 4 * scale * random.choice([-1, 1])
        elif change == "noise":
            values[event] += 5 * scale * random.standard_normal(length)
        else:
            values[place : place + 100] = values[place]
        spans.append((int(place) - 20, int(place) + 180))
    return 1.4e9 + 300.0 * at, values, spans


if __name__ == "__main__":
    main()
