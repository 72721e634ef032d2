"""How good recall is: known errors, questions in other words, contradictions and what is stale.

    python bench/recall_quality.py [--seed N]

All of it is made here from a seed, or hand written (tests/data/ops*.json, CC0).

errors       150 kinds of errors in Python, Java and JavaScript, a solution of each written down,
             and the same errors as they come from another release: other line numbers, paths, ids,
             hosts, a frame more or less. And 150 errors that were never seen, of the same types and
             libraries. By `known_error`, and by search among solutions.
questions    ops, ops_fix and ops_ask; and 200 facts of 40 people asked for in other words. Times
             are drawn over two years, so age may do harm. By words alone, by vectors alone, by both
             (the order of search), and as the engine answers: with age, and only what is relevant.
statements   100 preferences that changed and 100 notes that did. Is the newest first, is the older
             one there, and is it the answer as of its time?
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from engram.exporters.embedding.models import BUILTIN, load
from engram.exporters.engine import Engine, EngineSettings
from engram.exporters.home import Home
from engram.exporters.index_read import IndexReader
from engram.exporters.memories import memory_id
from engram.exporters.signals import Encoding, Signal
from engram.exporters.words import asked
from engram.learning.indexer import Indexer
from engram.learning.recall import Recall
from engram.learning.search import fuse, share, vector_weight

DATA = Path(__file__).parents[1] / "tests" / "data"
START = 1_790_000_000_000_000_000
DAY = 86_400 * 10**9
NOW = START + 730 * DAY


@dataclass
class Event:
    """A record of a log."""

    name: str
    at: int
    attributes: dict[str, Any] = field(default_factory=dict)
    body: str | None = None
    service: str = "shop"

    @property
    def id(self) -> str:
        """Of the memory that a mark with a key makes."""
        return memory_id(
            self.name.removeprefix("engram."), "", f"id:{self.attributes['engram.id']}"
        )


class World:
    """A home that events were sent into, indexed."""

    def __init__(self, root: Path, events: Sequence[Event]) -> None:
        self.home = Home(root)
        engine = Engine(self.home, EngineSettings(commit_interval_s=0.02))
        engine.start()
        for start in range(0, len(events), 500):
            some = ExportLogsServiceRequest()
            for event in events[start : start + 500]:
                logs = some.resource_logs.add()
                logs.resource.attributes.add(key="service.name").value.string_value = event.service
                record = logs.scope_logs.add().log_records.add(
                    event_name=event.name, time_unix_nano=event.at
                )
                for key, value in event.attributes.items():
                    record.attributes.add(key=key).value.string_value = str(value)
                if event.body:
                    record.body.string_value = event.body
            body = some.SerializeToString()
            engine.admit(Signal.LOGS, body, Encoding.IDENTITY).result(60)
        engine.wait_committed(engine.end, 60)
        engine.shutdown(20)
        indexer = Indexer(self.home)
        while indexer.step():
            pass
        indexer.close()
        self.recall = Recall(self.home, clock=lambda: NOW)


# -- errors ----------------------------------------------------------------------------------------

AREAS = ("orders", "billing", "search", "mail", "stock", "login", "export", "prices", "carts",
         "reports", "media", "tax", "refunds", "shipping", "profile")  # fmt: skip
VERBS = ("load", "save", "merge", "check", "send", "count", "parse", "render", "lock", "sync")
THINGS = ("row", "page", "ticket", "batch", "quote", "label", "draft", "image", "ledger", "address")
TYPES = {
    "python": ("TimeoutError", "KeyError", "sqlalchemy.exc.OperationalError", "ValueError",
               "redis.exceptions.ConnectionError", "json.decoder.JSONDecodeError"),
    "java": ("java.lang.NullPointerException", "java.sql.SQLTimeoutException",
             "org.acme.shop.StockException", "java.lang.IllegalStateException"),
    "js": ("TypeError", "RangeError", "AxiosError", "ReferenceError"),
}  # fmt: skip
SAID = (
    "no answer from {host} after {n} ms", "{thing} {n} was changed by somebody else",
    "could not {verb} the {thing} of {id}", "unexpected end of the {thing} at byte {n}",
    "the {thing} has no field '{verb}'", "limit of {n} {thing}s reached on {host}",
)  # fmt: skip
DONE = ("raise the limit of the {thing} pool in {area}", "retry the {verb} with a new {thing}",
        "roll {area} back to the release before", "add an index for the {thing} of {area}",
        "ask {area} for a smaller {thing}", "drain the {thing} queue, restart {area}")  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A kind of error: what raises it, and what it says."""

    language: str
    type: str
    frames: tuple[tuple[str, str], ...]
    said: str

    def occurs(self, rng: random.Random, *, release: int) -> tuple[str, str]:
        """Its message and stack as they come from a release."""
        said = self.said.format(
            host=f"10.{rng.randrange(9)}.{rng.randrange(99)}.{rng.randrange(99)}",
            n=rng.randrange(10, 99_999), id=f"{rng.getrandbits(64):016x}",
        )  # fmt: skip
        frames = list(self.frames)
        if release and rng.random() < 0.5:
            frames.insert(rng.randrange(len(frames)), ("middleware/trace", "around"))
        if release and rng.random() < 0.3 and len(frames) > 3:
            del frames[0]  # the outermost
        return said, "\n".join(self._stack(frames, said, rng, release))

    def _stack(
        self, frames: list[tuple[str, str]], said: str, rng: random.Random, release: int
    ) -> Iterator[str]:
        root = f"/srv/releases/{release}" if release else "/srv/app"
        if self.language == "python":
            yield "Traceback (most recent call last):"
            for file, name in frames:
                yield f'  File "{root}/{file}.py", line {rng.randrange(5, 900)}, in {name}'
                yield f"    {name}()"
            yield f"{self.type}: {said}"
            return
        yield f"{self.type}: {said}"
        for file, name in reversed(frames):
            line = rng.randrange(5, 900)
            if self.language == "java":
                package = "com.acme." + file.replace("/", ".")
                yield f"\tat {package}.{name}({file.split('/')[-1].title()}.java:{line})"
            else:
                yield f"    at {name} ({root}/{file}.js:{line}:{rng.randrange(1, 60)})"


def kinds(rng: random.Random, count: int, suffix: str) -> list[Kind]:
    """Different errors; those of another suffix are in other functions."""
    made: list[Kind] = []
    taken: set[tuple[str, object]] = set()
    while len(made) < count:
        language = rng.choice(list(TYPES))
        area, verb, thing = rng.choice(AREAS), rng.choice(VERBS), rng.choice(THINGS)
        frames = [("web/server", "handle"), (f"{area}/routes", f"on_{area}")]
        frames += [
            (f"{area}/{rng.choice(THINGS)}{suffix}", f"{rng.choice(VERBS)}_{rng.choice(THINGS)}")
            for _ in range(rng.randrange(2, 6))
        ]
        frames.append((f"{area}/{thing}{suffix}", f"{verb}_{thing}"))
        said = rng.choice(SAID).replace("{thing}", thing).replace("{verb}", verb)
        kind = Kind(language, rng.choice(TYPES[language]), tuple(frames), said)
        names = {(kind.type, frames[-1]), (kind.type, kind.said)}
        if not names & taken:  # a solution is written down for a type and a message
            taken |= names
            made.append(kind)
    return made


def errors(root: Path, rng: random.Random) -> None:
    """Known errors from another release, and errors that were never seen."""
    known, unseen = kinds(rng, 150, ""), kinds(rng, 150, "_v2")
    events, solutions = [], {}
    for number, kind in enumerate(known):
        for _ in range(3):
            said, stack = kind.occurs(rng, release=0)
            events.append(
                Event("exception", START + rng.randrange(300) * DAY,
                      {"exception.type": kind.type, "exception.message": said,
                       "exception.stacktrace": stack})
            )  # fmt: skip
        file, name = kind.frames[-1]
        area, thing = file.split("/")
        done = rng.choice(DONE).format(area=area, thing=thing, verb=name.split("_")[0])
        solution = Event(
            "engram.error_solution", START + 301 * DAY,
            {"engram.id": f"s{number}", "engram.title": f"Fix for {kind.type} in {name}: {done}",
             "error_type": kind.type, "error_message": said, "solution": done},
        )  # fmt: skip
        events.append(solution)
        solutions[number] = solution.id
    world = World(root, events)
    by_known = by_search = wrong_known = wrong_search = similar = 0
    for number, kind in enumerate(known):
        _, stack = kind.occurs(rng, release=rng.randrange(2, 40))
        best = world.recall.known_error(stack).best
        by_known += best is not None and best.id == solutions[number]
        found = world.recall.search(stack, types=["error_solution"], limit=1).items
        by_search += bool(found) and found[0].id == solutions[number]
    for kind in unseen:
        _, stack = kind.occurs(rng, release=rng.randrange(2, 40))
        told = world.recall.known_error(stack)
        wrong_known += told.best is not None
        similar += told.match == "similar"
        wrong_search += bool(world.recall.search(stack, types=["error_solution"], limit=1).items)
    print("errors (150 known, 150 unseen)      hit@1   false match on unseen")
    n, m = len(known), len(unseen)
    print(f"  known_error                      {by_known / n:6.3f}   {wrong_known / m:6.3f}"
          f"   (told as similar only: {similar / m:.3f})")  # fmt: skip
    print(f"  search among solutions           {by_search / n:6.3f}   {wrong_search / m:6.3f}")
    world.recall.close()


# -- questions -------------------------------------------------------------------------------------

NAMES = (
    "Anna", "Otto", "Mira", "Jonas", "Lea", "Paul", "Ida", "Emil", "Nora", "Felix",
    "Clara", "Hugo", "Ella", "Oskar", "Mia", "Anton", "Lina", "Karl", "Rosa", "Bruno",
    "Greta", "Max", "Frida", "Ben", "Olga", "Tom", "Vera", "Leo", "Ines", "Kai",
    "Jana", "Nils", "Maja", "Erik", "Lara", "Finn", "Emma", "Sven", "Tilda", "Jan",
)  # fmt: skip
FACTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("{who} moved to {what} last spring", "which city is home to {who} now",
     ("Lisbon", "Oslo", "Ghent", "Turin", "Porto", "Graz", "Basel", "Leeds")),
    ("{who} cannot eat {what}; it makes them ill", "what food is {who} allergic to",
     ("peanuts", "shellfish", "gluten", "celery", "lupins", "eggs", "mustard", "milk")),
    ("{who} plays the {what} in a band on weekends", "what musical instrument does {who} practise",
     ("violin", "drums", "trumpet", "cello", "oboe", "harp", "banjo", "flute")),
    ("{who} drives a {what} to work", "what kind of vehicle does {who} commute with",
     ("van", "scooter", "tractor", "taxi", "motorbike", "pickup", "tram", "bicycle")),
    ("{who} was promoted to {what} in March", "what is the job of {who} at the company",
     ("architect", "accountant", "director", "nurse", "editor", "pilot", "chef", "judge")),
)  # fmt: skip


@dataclass
class Set:
    """Documents, and questions with the documents that answer each."""

    name: str
    docs: list[str]
    queries: list[tuple[str, set[int]]]


def sets(rng: random.Random) -> Iterator[Set]:
    for name in ("ops", "ops_fix", "ops_ask"):
        data = json.loads((DATA / f"{name}.json").read_text())
        yield Set(name, data["docs"], [(q["text"], set(q["positives"])) for q in data["queries"]])
    docs, queries = [], []
    for who in NAMES:
        for fact, question, values in FACTS:
            queries.append((question.format(who=who), {len(docs)}))
            docs.append(fact.format(who=who, what=rng.choice(values)))
    yield Set("facts", docs, queries)


def questions(root: Path, rng: random.Random) -> None:
    """Words, vectors and the engine on each set."""
    heads = "".join(name.ljust(19) for name in ("words", "vectors", "both", "engine"))
    print(f"\n{'questions':21}{heads}")
    print(" " * 21 + "hit@1 hit@5   MRR  " * 4 + "answered")
    embedder = load(BUILTIN)
    for one in sets(rng):
        events = [
            Event("engram.note", START + rng.randrange(730 * 24) * DAY // 24,
                  {"engram.id": f"d{n}", "engram.title": text[:100], "engram.content": text})
            for n, text in enumerate(one.docs)
        ]  # fmt: skip
        world = World(root / one.name, events)
        place = {event.id: n for n, event in enumerate(events)}
        reader = IndexReader(world.home, embedder.embedder_id)

        def by(
            score: str, query: str, reader: IndexReader = reader, place: dict[str, int] = place
        ) -> list[int]:
            found = reader.matches(list(asked(query)), embedder.embed([query])[0], 50)
            found = [match for match in found if getattr(match, score) > 0]
            found.sort(key=lambda match: (-getattr(match, score), match.id))
            return [place[match.memory_id] for match in found]

        def both(
            query: str, reader: IndexReader = reader, place: dict[str, int] = place
        ) -> list[int]:
            wanted = asked(query)
            found = reader.matches(list(wanted), embedder.embed([query])[0], 50)
            best = max(found, key=lambda match: (match.text_score, match.id))
            had = share(wanted, reader.words([best.place])[best.place]) if best.text_score else 0
            ranked = fuse(found, had**2, vector_weight(wanted))
            ranked.sort(key=lambda found: (-(found[0] + found[1]), found[2].id))
            return [place[match.memory_id] for *_, match in ranked]

        def engine(query: str, world: World = world, place: dict[str, int] = place) -> list[int]:
            found = world.recall.search(query, limit=50).items
            return [place[item.id] for item in found]

        ways: tuple[Callable[[str], list[int]], ...] = (
            lambda query: by("text_score", query), lambda query: by("vector_score", query),
            both, engine,
        )  # fmt: skip
        told, best = [], []
        for way in ways:
            hits = [_first(way(query), right) for query, right in one.queries]
            n = len(hits)
            mrr = sum(1 / (at + 1) for at in hits) / n
            best.append(mrr)
            at_1, at_5 = sum(at == 0 for at in hits) / n, sum(at < 5 for at in hits) / n
            told.append(f"{at_1:5.2f} {at_5:5.2f} {mrr:5.3f}")
        answered = sum(bool(engine(query)) for query, _ in one.queries) / len(one.queries)
        worse = "" if best[2] >= max(best[:2]) else "  both below the better one"
        print(f"{one.name:20} {'  '.join(told)}  {answered:5.2f}{worse}", flush=True)
        world.recall.close()


def _first(found: list[int], right: set[int]) -> float:
    return min((found.index(one) for one in right if one in found), default=float("inf"))


# -- statements ------------------------------------------------------------------------------------


def statements(root: Path, rng: random.Random) -> None:
    """What was said twice, differently."""
    colours = ("red", "blue", "green", "amber", "grey", "violet", "white", "black")
    events, asked_ = [], []
    for number in range(100):
        who, thing = rng.choice(NAMES), f"{rng.choice(THINGS)} {number}"
        old, new = rng.sample(colours, 2)
        then, later = (START + rng.randrange(a, b) * DAY for a, b in ((0, 300), (400, 700)))
        for kind in ("user_preference", "note"):
            pair = []
            for value, at in ((old, then), (new, later)):
                words = f"{who} wants the {thing} of {kind.replace('_', ' ')}s in {value}"
                event = Event(
                    f"engram.{kind}", at,
                    {"engram.id": f"{kind}{number}{value}", "engram.title": words,
                     "user.id": who.lower()},
                )  # fmt: skip
                if kind == "user_preference":
                    event.attributes["engram.subject"] = f"preference:{thing}"
                events.append(event)
                pair.append(event)
            asked_.append((kind, f"in which colour does {who} want the {thing}", pair, then))
    rng.shuffle(events)
    world = World(root, events)
    print("\nstatements that changed            newest first   older one there   right as of then")
    for kind in ("user_preference", "note"):
        first = both = then_right = total = 0
        for of, question, (old_one, new_one), then in asked_:
            if of != kind:
                continue
            total += 1
            ids = [item.id for item in world.recall.search(question, types=[kind]).items]
            first += ids[:1] == [new_one.id]
            both += {old_one.id, new_one.id} <= set(ids)
            before = world.recall.search(question, types=[kind], as_of_ns=then + DAY).items
            then_right += [item.id for item in before[:1]] == [old_one.id]
        subject = " (with a subject)" if kind == "user_preference" else " (without)"
        print(f"  {kind + subject:32} {first / total:10.2f} {both / total:15.2f}"
              f" {then_right / total:17.2f}")  # fmt: skip
    world.recall.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="engram-recall-") as folder:
        errors(Path(folder) / "errors", rng)
        questions(Path(folder) / "questions", rng)
        statements(Path(folder) / "statements", rng)


if __name__ == "__main__":
    main()
