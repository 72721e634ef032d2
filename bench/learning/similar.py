"""Errors of the same cause: how often the first one found is one.

    python bench/learning/similar.py TRACES.json

TRACES.json is a list of {proj, bug, etype, msg, frames: [[class, function, place]]}. Bugs of the
query's project are ranked by their most similar trace, the query itself left out; RR@k is the share
of queries whose own bug is among the first k, ties counted half.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

from engram.learning.similar import SimilarTraces, Trace


def main() -> None:
    said = json.loads(Path(sys.argv[1]).read_text())
    projects = defaultdict(list)
    for at, one in enumerate(said):
        frames = tuple((frame[0], frame[1]) for frame in one["frames"])
        trace = Trace(str(at), one["etype"], one["msg"], frames)
        projects[one["proj"]].append((one["bug"], trace))
    hits: Counter[int] = Counter()
    exact = queries = compared = 0
    reciprocal = spent = 0.0
    for traces in projects.values():
        known = SimilarTraces()
        known.add(trace for _, trace in traces)
        bug_of = {trace.id: bug for bug, trace in traces}
        times = Counter(bug for bug, _ in traces)
        for bug, trace in traces:
            if times[bug] < 2:
                continue
            began = time.process_time()
            found = known.search(trace, len(traces))
            spent += time.process_time() - began
            compared += len(found)
            best: dict[str, float] = {}
            for id_, score in found:
                best[bug_of[id_]] = max(best.get(bug_of[id_], 0.0), score)
            own = best.pop(bug, 0.0)
            rank = 1 + sum(one > own for one in best.values())
            rank += 0.5 * sum(one == own for one in best.values())
            queries += 1
            reciprocal += 1 / rank
            for k in (1, 5, 10):
                hits[k] += rank <= k
            print_ = (trace.type, trace.frames)
            exact += any(
                other != bug and (one.type, one.frames) == print_ for other, one in traces
            ) is False and any(
                one is not trace and other == bug and (one.type, one.frames) == print_
                for other, one in traces
            )
    print(
        f"{queries} queries: "
        + ", ".join(f"RR@{k} {hits[k] / queries:.3f}" for k in (1, 5, 10))
        + f", MRR {reciprocal / queries:.3f}; {compared / spent:,.0f} comparisons per CPU-second"
    )
    print(f"by exact type and frames alone, first and unambiguous: {exact / queries:.3f}")


if __name__ == "__main__":
    main()
