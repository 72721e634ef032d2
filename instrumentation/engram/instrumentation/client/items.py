"""What comes back. All text in it was written by somebody's program: data, not instructions."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from html import escape
from typing import Any


@dataclass(slots=True)
class Memory:
    """A memory as programs see it."""

    id: str
    title: str
    content: str
    memory_type: str
    tags: list[str] = field(default_factory=list)
    meta_data: dict[str, Any] = field(default_factory=dict)
    created_at: datetime.datetime = field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC)
    )
    user_id: str | None = None
    score: float | None = None
    """How well it fits a search; None where nothing was compared."""
    importance: float = 0.0
    session_id: str | None = None
    service: str | None = None
    outcome: str | None = None
    duration_ms: float | None = None
    trace_id: str | None = None
    source: str | None = None
    trust: str | None = None
    count: int = 1
    """Near-equal memories that are told as this one."""
    first_seen: datetime.datetime | None = None
    last_seen: datetime.datetime | None = None
    pinned: bool = False
    superseded_by: str | None = None
    why: dict[str, Any] = field(default_factory=dict)
    url: str = ""

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Memory:
        """From the JSON of the API; what this version does not know is left out."""
        known = {one.name for one in fields(cls)}
        made = {name: value for name, value in said.items() if name in known}
        for name in ("created_at", "first_seen", "last_seen"):
            if isinstance(made.get(name), str):
                made[name] = datetime.datetime.fromisoformat(made[name])
        if made.get("created_at") is None:
            made["created_at"] = datetime.datetime.fromtimestamp(0, datetime.UTC)
        made["tags"] = list(made.get("tags") or ())
        made["meta_data"] = dict(made.get("meta_data") or {})
        made["why"] = dict(made.get("why") or {})
        return cls(**made)

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def _repr_html_(self) -> str:
        return Memories([self])._repr_html_()


class Memories(list[Memory]):
    """Memories in the order in which they were told."""

    def __init__(
        self, items: Iterable[Memory] = (), *, note: str = "", next: str | None = None,
        explanation: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(items)
        self.note = note
        """What the reader must know, such as that nothing could be asked."""
        self.next = next
        """The cursor of the part after this one."""
        self.explanation = dict(explanation or {})

    def to_dicts(self) -> list[dict[str, Any]]:
        """As plain values."""
        return [one.to_dict() for one in self]

    def to_polars(self) -> Any:
        """As a `polars.DataFrame`, a row for each; `meta_data` and `why` are structs.

        Raises:
            ModuleNotFoundError: polars is not installed.
        """
        try:
            import polars
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("to_polars needs polars: pip install polars") from error
        return polars.from_dicts(self.to_dicts(), infer_schema_length=None, strict=False)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(f'{one.score:.2f}' if one.score is not None else '')}</td>"
            f"<td>{escape(one.memory_type)}</td>"
            f"<td>{escape(one.created_at.isoformat(sep=' ', timespec='seconds'))}</td>"
            f"<td><b>{escape(one.title)}</b><br>{escape(one.content[:300])}</td></tr>"
            for one in self[:50]
        )
        more = f"<p>and {len(self) - 50} more</p>" if len(self) > 50 else ""
        note = f"<p>{escape(self.note)}</p>" if self.note else ""
        head = "<tr><th>score</th><th>type</th><th>time</th><th>memory</th></tr>"
        return f"{note}<table>{head}{rows}</table>{more}"


@dataclass(slots=True)
class ContextWindow:
    """What a model is given of memory: fenced, with source and trust, within a budget."""

    items: Memories
    text: str
    """Markdown, fenced."""
    token_count: int = 0
    truncated: dict[str, Any] | None = None
    """What was left out and why; None: nothing."""
    sections: dict[str, Memories] = field(default_factory=dict)
    """The items by what they are there for: recent, similar, known solutions, decisions ..."""

    def messages(self) -> list[dict[str, str]]:
        """As messages of a chat: of the user's role, never the system's."""
        return [{"role": "user", "content": self.text}] if self.text else []

    def __iter__(self) -> Any:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return f"<p>{self.token_count} tokens</p>{self.items._repr_html_()}"


__all__ = ["ContextWindow", "Memories", "Memory"]
