"""How often "resolved" is said of an error that is not, when a report looks every day.

    python bench/learning/resolved.py [--trials 2000]

An operation runs by day and night (a factor 10 between them, weekends halved), fails at some rate,
in bursts or not: two weeks before a change that changes nothing, and up to 30 days after it, judged
at the end of each. `mix` is a confounder: after the change nine in ten runs go another way that
never fails, as a deploy may do; then the rate is a tenth of what it was, and whoever says resolved
is at the limit of what is claimed. Then the same with a fix that works: how many runs until it is
said.
"""

from __future__ import annotations

import argparse
import random
import statistics

from engram.learning.exposure import Exposure, judge


def hour(dice: random.Random, at: int, a_day: float) -> int:
    day, time = divmod(at, 24)
    rate = a_day / 24 * (1.8 if 8 <= time < 20 else 0.18) * (0.5 if day % 7 > 4 else 1.0)
    return int(dice.gauss(rate, rate**0.5) + 0.5) if rate > 20 else poisson(dice, rate)


def poisson(dice: random.Random, mean: float) -> int:
    count, left = 0, dice.expovariate(1.0)
    while left < mean:
        count += 1
        left += dice.expovariate(1.0)
    return count


def life(
    dice: random.Random, hours: int, a_day: float, rate: float, burst: float
) -> tuple[list[int], list[int]]:
    """Runs and failures by the hour; `burst` hours of every hundred have all of the failures."""
    runs, failures = [], []
    for at in range(hours):
        count = max(0, hour(dice, at, a_day))
        now = rate
        if burst:
            now = min(0.95, rate * 100 / burst) if dice.random() < burst / 100 else 0.0
        runs.append(count)
        failures.append(sum(dice.random() < now for _ in range(count)))
    return runs, failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=400)
    options = parser.parse_args()
    print("| runs a day | rate | bursts | after | trials | false resolved |")
    print("|---:|---:|---|---|---:|---:|")
    dice = random.Random(1)
    for a_day, rate, burst, factor in (
        (200, 0.1, 0, 1.0), (200, 0.1, 20, 1.0), (200, 0.02, 0, 1.0), (200, 0.02, 5, 1.0),
        (2000, 0.01, 0, 1.0), (2000, 0.01, 10, 1.0), (200, 0.1, 0, 0.1), (2000, 0.02, 0, 0.1),
        (200, 0.1, 20, 0.1),
    ):  # fmt: skip
        said = trials = 0
        while trials < options.trials:
            before = Exposure(*map(tuple, life(dice, 14 * 24, a_day, rate, burst)))
            if before.k < 2:
                continue
            trials += 1
            runs, failures = life(dice, 30 * 24, a_day, rate * factor, burst)
            for day in range(1, 31):
                after = Exposure(tuple(runs[: day * 24]), tuple(failures[: day * 24]))
                if judge(before, after).verdict == "resolved":
                    said += 1
                    break
        bursts = f"{burst} % of hours" if burst else "none"
        what = "the same" if factor == 1 else "mix: a tenth"
        print(
            f"| {a_day} | {rate} | {bursts} | {what} | {trials} | {said / trials:.3f} |",
            flush=True,
        )
    print(
        "\n| rate before | failures before | clean runs until resolved, median |\n|---:|---:|---:|"
    )
    for rate in (0.5, 0.1, 0.05, 0.01, 0.001):
        needed = []
        for _ in range(30):
            runs, failures = life(dice, 14 * 24, max(200, 40 / rate), rate, 0)
            found = judge(Exposure(tuple(runs), tuple(failures)), Exposure((), ()))
            if found.needed is not None:
                needed.append(found.needed)
        print(f"| {rate} | {sum(failures)} | {statistics.median(needed):,.0f} |", flush=True)


if __name__ == "__main__":
    main()
