"""Change points: against those that people marked, and on series whose changes are known.

    python bench/learning/changepoints.py TCPD_FOLDER

TCPD_FOLDER has `annotations.json` ({series: {annotator: [index]}}) and `datasets/*/*.json`. As in
the benchmark of that name: F1 by a margin of 5 points, where the start of a series counts as found,
precision is against all annotators together and recall the mean over them; *cover* is how well the
segments overlap theirs. The second part is made here: noise without change (white, AR(1),
seasonal) and steps of known size.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from engram.learning.changepoints import changepoints

MARGIN = 5
ROUNDS = 20


def matched(marks: set[int], found: set[int]) -> int:
    """How many marks have a found one of their own within the margin."""
    left, hits = set(found), 0
    for mark in sorted(marks):
        near = [one for one in left if abs(one - mark) <= MARGIN]
        if near:
            left.remove(min(near, key=lambda one: (abs(one - mark), one)))
            hits += 1
    return hits


def f1(annotators: Sequence[Sequence[int]], found: Sequence[int]) -> float:
    """Of one series."""
    said = [{0, *marks} for marks in annotators]
    got = {0, *found}
    precision = matched(set().union(*said), got) / len(got)
    recall = float(np.mean([matched(marks, got) / len(marks) for marks in said]))
    return 2 * precision * recall / (precision + recall)


def cover(annotators: Sequence[Sequence[int]], found: Sequence[int], length: int) -> float:
    """Of one series: for each marked segment the best overlap, by length."""

    def segments(marks: Sequence[int]) -> list[tuple[int, int]]:
        edges = [0, *sorted(one for one in set(marks) if 0 < one < length), length]
        return list(itertools.pairwise(edges))

    def overlap(one: tuple[int, int], other: tuple[int, int]) -> float:
        both = max(0, min(one[1], other[1]) - max(one[0], other[0]))
        return both / (one[1] - one[0] + other[1] - other[0] - both)

    ours = segments(found)
    return float(
        np.mean(
            [
                sum((s[1] - s[0]) * max(overlap(s, own) for own in ours) for s in segments(marks))
                / length
                for marks in annotators
            ]
        )
    )


def annotated(folder: Path) -> Iterator[tuple[str, np.ndarray, list[list[int]]]]:
    """Name, values and marks of every series of one dimension."""
    annotations = json.loads((folder / "annotations.json").read_text())
    for path in sorted(folder.glob("datasets/*/*.json")):
        said = json.loads(path.read_text())
        if said["n_dim"] == 1 and said["name"] in annotations:
            values = np.array(said["series"][0]["raw"], float)
            yield said["name"], values, list(annotations[said["name"]].values())


def made(
    rng: np.random.Generator, length: int, rho: float, step: float, season: float
) -> tuple[np.ndarray, int]:
    """Noise of variance 1 (AR(1) by `rho`), a day of 24 points, one step in the middle half."""
    noise = rng.normal(size=length) * np.sqrt(1 - rho * rho)
    for at in range(1, length):
        noise[at] += rho * noise[at - 1]
    at = int(rng.integers(length // 4, 3 * length // 4))
    noise += season * np.sin(np.arange(length) * 2 * np.pi / 24)
    noise[at:] += step
    return 100 + 7 * noise, at


def main() -> None:
    scores, covers, spent, points = [], [], 0.0, 0
    zero = []
    for name, values, marks in annotated(Path(sys.argv[1])):
        found = changepoints(values)
        began = time.process_time()
        for _ in range(ROUNDS):
            changepoints(values)
        spent += (time.process_time() - began) / ROUNDS
        points += len(values)
        scores.append(f1(marks, found))
        covers.append(cover(marks, found, len(values)))
        zero.append(f1(marks, []))
        print(f"  {name:20s} n {len(values):4d}  F1 {scores[-1]:.3f}  {found}")
    print(
        f"{len(scores)} annotated series of {points / len(scores):.0f} points: "
        f"F1 {np.mean(scores):.3f}, cover {np.mean(covers):.3f} "
        f"(nothing ever found: F1 {np.mean(zero):.3f}); "
        f"{len(scores) / spent:,.0f} series per CPU-second"
    )
    rng = np.random.default_rng(5)
    for length in (50, 288, 1000):
        for rho, season in ((0.0, 0.0), (0.5, 0.0), (0.8, 0.0), (0.0, 3.0)):
            quiet = [made(rng, length, rho, 0.0, season)[0] for _ in range(200)]
            began = time.process_time()
            false = np.mean([bool(changepoints(one)) for one in quiet])
            rate = len(quiet) / (time.process_time() - began)
            told = []
            for step in (2.0, 4.0, 8.0):
                stepped = [made(rng, length, rho, step, season) for _ in range(100)]
                near = [
                    min((abs(one - at) for one in changepoints(values)), default=99) <= 2
                    for values, at in stepped
                ]
                told.append(f"{step:.0f} sigma {np.mean(near):.2f}")
            print(
                f"{length:5d} points, rho {rho}, season {season}: false in {false:.3f} of quiet "
                f"series, step found within 2 points {', '.join(told)}; {rate:,.0f}/s"
            )


if __name__ == "__main__":
    main()
