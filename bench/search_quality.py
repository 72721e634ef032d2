"""How good search is: hit@1, hit@5 and MRR of words, of vectors and of both, and of other weights.

    python bench/search_quality.py [--model NAME]

Sets: the three of tests/data (hand written, CC0), and four made here from a seed: `names`
(an identifier among identifiers of the same parts), `lines` (a log line, and others of its
template), `known` (half of the words of a docstring's sentence, and the docstring), `codes` (an
order number in a text). One configuration for all of them. Last, questions about nothing that is
stored: how many of them get the answer "nothing relevant", and how many of the others do.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import json
import random
import re
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from engram.exporters.embedding.models import load
from engram.exporters.home import Home
from engram.exporters.index_read import IndexReader, Match
from engram.exporters.lake.attach import attach_sql, connect
from engram.exporters.words import Terms, asked
from engram.learning.indexer import Indexer
from engram.learning.search import (
    LOOKUP_WEIGHT,
    VECTOR_WEIGHT,
    Searcher,
    fuse,
    share,
    vector_weight,
)

DATA = Path(__file__).parents[1] / "tests" / "data"

OFF_TOPIC = (
    "how long do I boil an egg", "best hiking trail near the lake", "who won the tennis final",
    "cheap flights to Lisbon in May", "what is a good name for a kitten",
    "the plot of the novel about the whale", "how to prune roses in spring",
    "symptoms of a common cold", "recipe for lentil soup", "when does the pharmacy open",
    "guitar chords for beginners", "history of the roman aqueducts", "how tall is the lighthouse",
    "paint colours for a small bedroom", "which wine goes with fish", "rules of badminton",
    "do penguins have knees", "knitting pattern for a scarf", "museum opening hours on sunday",
    "how to fold a paper crane",
)  # fmt: skip


@dataclass(frozen=True)
class Set:
    """Queries, documents, and which of them answer which."""

    name: str
    docs: list[str]
    queries: list[tuple[str, set[int]]]


def written(name: str) -> Set:
    data = json.loads((DATA / f"{name}.json").read_text())
    return Set(name, data["docs"], [(q["text"], set(q["positives"])) for q in data["queries"]])


def names(rng: random.Random) -> Set:
    """Every order of three parts is another class; the query names one, in one of five ways."""
    parts = ("Connection", "Timeout", "Pool", "Worker", "Session", "Token", "Cache", "Upload")
    docs, queries = [], []
    tails = ("was raised while saving", "in the nightly run", "after the deploy", "for one tenant")
    chosen = rng.sample(list(itertools.permutations(parts, 3)), 200)
    for place, (a, b, c) in enumerate(chosen):
        spelled = (
            f"{a}{b}{c}Error", f"{a}_{b}_{c}".lower(), f"app.{a.lower()}.{b}{c}",
            f"/{a}/{b}/{c}".lower(), f"{a}.{b}.{c}".lower(),
        )[place % 5]  # fmt: skip
        docs.append(f"{spelled} {rng.choice(tails)}")
        if place % 2:
            queries.append((spelled, {place}))
    return Set("names", docs, queries)


def lines(rng: random.Random) -> Set:
    """Log lines of 90 templates; the query is one more line of a template."""
    who = ("worker", "gateway", "billing", "scheduler", "mailer", "exporter")
    did = ("failed to connect to", "timed out waiting for", "retried the request to",
           "lost its lease on", "received a malformed answer from")  # fmt: skip
    what = ("the primary database", "shard <n>", "host 10.0.<n>.<n>", "queue orders-<n>")
    docs, queries = [], []
    for a, b, c in rng.sample(list(itertools.product(who, did, what)), 90):
        template = f"{a} {b} {c} after <n> ms (attempt <n>)"

        def line(template: str = template) -> str:
            return re.sub("<n>", lambda _: str(rng.randrange(1, 250)), template)

        start = len(docs)
        docs += [line() for _ in range(3)]
        queries.append((line(), set(range(start, start + 3))))
    return Set("lines", docs, queries)


def known(rng: random.Random) -> Set:
    """Docstrings of the standard library; the query is half of the words of one sentence."""
    texts: list[str] = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8", "replace"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                text = " ".join((ast.get_docstring(node) or "").split())
                if 150 < len(text) < 900:
                    texts.append(text)
    texts = rng.sample(sorted(set(texts)), 600)
    queries = []
    for place in rng.sample(range(600), 150):
        said = max(re.split(r"(?<=[.!?])\s+", texts[place]), key=len).split()
        queries.append((" ".join(rng.sample(said, max(2, min(8, len(said) // 2)))), {place}))
    return Set("known", texts, queries)


def codes(rng: random.Random) -> Set:
    """An order number, in a text about something else."""
    base = known(rng).docs[:200]
    numbers = [f"{rng.randrange(1000, 9999)}{rng.choice('kmx')}" for _ in base]
    docs = [f"{text} order-{number}" for text, number in zip(base, numbers, strict=True)]
    return Set("codes", docs, [(f"order {one}", {n}) for n, one in enumerate(numbers)][:60])


def store(home: Home, texts: Sequence[str]) -> None:
    """A lake with one memory for each text."""
    home.create()
    rows = [
        {
            "id": f"{n:024x}", "type": "system_error", "time_unix_nano": n, "title": text[:120],
            "content": text, "service_name": "shop", "user_id": None, "session_id": None,
            "importance": 0.5, "index_as": "memory", "source": "span", "trust": "app",
            "collector": "c", "sequence": 1,
        }
        for n, text in enumerate(texts)
    ]  # fmt: skip
    text_columns = {"user_id": pa.string(), "session_id": pa.string()}
    table = pa.Table.from_pylist(rows)
    for name, kind in text_columns.items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, pa.nulls(len(rows), kind))
    lake = connect(threads=1)
    lake.execute(attach_sql(home, read_only=False))
    lake.register("fresh", table)
    lake.execute("CREATE TABLE lake.memories AS SELECT * FROM fresh")
    lake.close()


Rank = Callable[[Terms, float, list[Match]], list[tuple[float, Match]]]
"""Of the query's words, the share of them that the best by words has, and the matches."""


def both(vectors: float, power: float = 2.0) -> Rank:
    """As search does, with another weight."""

    def rank(wanted: Terms, had: float, matches: list[Match]) -> list[tuple[float, Match]]:
        used = LOOKUP_WEIGHT if vector_weight(wanted) == LOOKUP_WEIGHT else vectors
        return [(a + b, match) for a, b, match in fuse(matches, had**power, used)]

    return rank


def of_best(wanted: Terms, _: float, matches: list[Match]) -> list[tuple[float, Match]]:
    """Both scores against the best of their kind, as the first release did."""
    used = 0.5 if vector_weight(wanted) == LOOKUP_WEIGHT else 3.0
    best = max((match.vector_score for match in matches), default=1.0)
    return [(a + b, match) for a, b, match in fuse(matches, 1.0, used / (best or 1.0))]


def reciprocal(_: Terms, __: float, matches: list[Match]) -> list[tuple[float, Match]]:
    scores = dict.fromkeys((match.id for match in matches), 0.0)
    for value in ("text_score", "vector_score"):
        ranked = sorted(matches, key=lambda match: (-getattr(match, value), match.id))
        for place, match in enumerate(ranked):
            if getattr(match, value) > 0:
                scores[match.id] += 1 / (10 + place)
    return [(scores[match.id], match) for match in matches]


RANKS: dict[str, Rank] = {
    "text": lambda _, __, matches: [(match.text_score, match) for match in matches],
    "vectors": lambda _, __, matches: [(match.vector_score, match) for match in matches],
    "hybrid": both(VECTOR_WEIGHT),
    "w = 0.5": both(0.5),
    "w = 0.75": both(0.75),
    "w = 1.25": both(1.25),
    "w = 1.5": both(1.5),
    "w = 2": both(2.0),
    "share, w = 1.5": both(1.5, 1.0),
    "text = 1, w = 2": both(2.0, 0.0),
    "of the best": of_best,
    "RRF k=10": reciprocal,
}


def measure(one: Set, model: str, home: Home) -> dict[str, tuple[float, float, float]]:
    """hit@1, hit@5 and MRR of each way to rank."""
    embedder = load(model)
    reader = IndexReader(home, embedder.embedder_id)
    totals = {name: [0.0, 0.0, 0.0] for name in RANKS}
    for query, positives in one.queries:
        wanted = asked(query)
        matches = reader.matches(list(wanted), embedder.embed([query])[0], 50)
        best = max(matches, key=lambda match: (match.text_score, match.id))
        had = share(wanted, reader.words([best.place])[best.place]) if best.text_score else 0.0
        for name, rank in RANKS.items():
            scored = sorted(rank(wanted, had, matches), key=lambda pair: (-pair[0], pair[1].id))
            ranked = [int(match.id, 16) for value, match in scored if value > 0]
            first = min((ranked.index(p) for p in positives if p in ranked), default=10**9)
            totals[name][0] += first == 0
            totals[name][1] += first < 5
            totals[name][2] += 1 / (first + 1)
    count = len(one.queries)
    return {name: (a / count, b / count, c / count) for name, (a, b, c) in totals.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="builtin", help="builtin, a folder, OWNER/NAME")
    options = parser.parse_args()
    rng = random.Random(11)
    sets = [*map(written, ("ops", "ops_fix", "ops_ask")),
            names(rng), lines(rng), known(rng), codes(rng)]  # fmt: skip
    found, worse = {}, []
    answered = off = asked_ = 0
    with tempfile.TemporaryDirectory(prefix="engram-quality-") as root:
        for one in sets:
            home = Home(Path(root) / one.name)
            store(home, one.docs)
            indexer = Indexer(home, model=options.model)
            while indexer.step():
                pass
            indexer.close()
            found[one.name] = measure(one, options.model, home)
            text, vectors, hybrid = (found[one.name][n][2] for n in ("text", "vectors", "hybrid"))
            if hybrid < max(text, vectors):
                worse.append(f"{one.name} {max(text, vectors) - hybrid:.3f}")
            searcher = Searcher(home)
            off += sum(not searcher.search(query) for query in OFF_TOPIC)
            answered += sum(bool(searcher.search(query)) for query, _ in one.queries)
            asked_ += len(one.queries)
            searcher.close()
    print("hit@1 hit@5 MRR".ljust(16) + "".join(name.rjust(18) for name in found) + "  mean MRR")
    for rank in RANKS:
        cells = [found[name][rank] for name in found]
        text = "".join(f"{a:6.2f}{b:6.2f}{c:6.3f}" for a, b, c in cells)
        print(rank.ljust(16) + text + f"{sum(c for _, _, c in cells) / len(cells):10.3f}")
    print(f"hybrid below the better of text and vectors: {', '.join(worse) or 'nowhere'}")
    print(f"questions about nothing stored, answered so: {off} of {len(OFF_TOPIC) * len(sets)}")
    print(f"questions of the sets, answered: {answered} of {asked_}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
