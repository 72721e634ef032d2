"""Log patterns against labelled logs, and how fast they are found.

    python bench/learning/patterns.py FOLDER [--lines 200000]

FOLDER holds any number of `*.log_structured.csv` (columns Content and EventTemplate, as LogHub has
them). GA is the share of lines whose group is exactly the labelled one (Zhu et al., ICSE 2019), FGA
the F1 of exact groups, where every template counts once (Jiang et al., ISSTA 2024). Each set is
mined alone, as it stands and shuffled; all with the one configuration there is.

For the speed every digit of every line is drawn anew, so that no line repeats. Run it with
`POLARS_MAX_THREADS=1 taskset -c 0` for one core.
"""

from __future__ import annotations

import argparse
import csv
import random
import re
import time
from collections import defaultdict
from pathlib import Path

from engram.learning.patterns import mine


def score(truth: list[str], found: list[int]) -> tuple[float, float]:
    """GA and FGA."""
    of_truth, of_found = defaultdict(list), defaultdict(int)
    for at, (label, number) in enumerate(zip(truth, found, strict=True)):
        of_truth[label].append(at)
        of_found[number] += 1
    exact = lines = 0
    for rows in of_truth.values():
        numbers = {found[at] for at in rows}
        if len(numbers) == 1 and of_found[numbers.pop()] == len(rows):
            exact += 1
            lines += len(rows)
    return lines / len(truth), 2 * exact / (len(of_truth) + len(of_found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lines", type=int, default=200_000)
    options = parser.parse_args()
    dice = random.Random(1)
    scores, everything = [], []
    print("| set | lines | labels | GA | FGA | shuffled |\n|---|---:|---:|---:|---:|---|")
    for path in sorted(options.folder.rglob("*.log_structured*.csv")):
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            rows = [(row["Content"], row["EventTemplate"]) for row in csv.DictReader(file)]
        before = score([row[1] for row in rows], mine([row[0] for row in rows]).of)
        everything += [row[0] for row in rows]
        count, labels = len(rows), len({row[1] for row in rows})
        dice.shuffle(rows)
        same = before == score([row[1] for row in rows], mine([row[0] for row in rows]).of)
        scores.append(before)
        print(
            f"| {path.parent.name} | {count} | {labels} | {before[0]:.3f} | {before[1]:.3f} "
            f"| {'equal' if same else 'DIFFERS'} |"
        )
    count = len(scores)
    print(
        f"| mean | | | {sum(one[0] for one in scores) / count:.3f} "
        f"| {sum(one[1] for one in scores) / count:.3f} | |"
    )
    print(f"worst GA {min(one[0] for one in scores):.3f}")
    dice.shuffle(everything)
    fresh = [
        re.sub(r"\d", lambda _: dice.choice("0123456789"), everything[at % len(everything)])
        for at in range(options.lines)
    ]
    began, cpu = time.perf_counter(), time.process_time()
    found = mine(fresh)
    wall, spent = time.perf_counter() - began, time.process_time() - cpu
    print(
        f"{len(fresh):,} lines, {len(set(fresh)):,} distinct, {len(found.templates)} patterns: "
        f"{len(fresh) / wall:,.0f} lines/s, {len(fresh) / spent:,.0f} per CPU-second"
    )


if __name__ == "__main__":
    main()
