"""What each operation took, by the hour: counts by duration, from which any quantile follows.

Durations are counted in buckets of a twelfth of a doubling (6 % wide), so a quantile is right to
3 %, and hours add up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from engram.learning.jobs.runner import Read

HOUR: Final = 3600 * 10**9
PER_DOUBLING: Final = 12


@dataclass(slots=True)
class Hour:
    """An operation in an hour."""

    runs: int = 0
    errors: int = 0
    buckets: dict[int, int] = field(default_factory=dict)

    def quantile(self, share: float) -> float:
        """Milliseconds."""
        left = share * self.runs
        for bucket, n in sorted(self.buckets.items()):
            left -= n
            if left <= 0:
                return milliseconds(bucket)
        return 0.0

    def above(self, ms: float) -> int:
        """Runs that took longer, to a bucket."""
        return sum(n for bucket, n in self.buckets.items() if milliseconds(bucket) > ms)


def milliseconds(bucket: int) -> float:
    """The middle of a bucket."""
    return float(2.0 ** ((bucket + 0.5) / PER_DOUBLING) / 1e6)


def added(hours: list[Hour]) -> Hour:
    """Several as one."""
    total = Hour()
    for one in hours:
        total.runs += one.runs
        total.errors += one.errors
        for bucket, n in one.buckets.items():
            total.buckets[bucket] = total.buckets.get(bucket, 0) + n
    return total


Operation = tuple[str, str]
"""Service and name of an entry span."""


def read_hours(read: Read, since: int, until: int) -> dict[Operation, dict[int, Hour]]:
    """The whole hours of entry spans (server and consumer) of all services."""
    rows = read(
        f"""
        SELECT coalesce(service_name, '') AS service, name,
            start_time_unix_nano // {HOUR} AS hour,
            floor(log2(greatest(end_time_unix_nano - start_time_unix_nano, 1)) * {PER_DOUBLING})
                ::INTEGER AS bucket,
            count(*) AS n, count(*) FILTER (WHERE status_code = 2) AS errors
        FROM lake.spans
        WHERE kind IN (2, 5) AND start_time_unix_nano >= ? AND start_time_unix_nano < ?
        GROUP BY ALL
        """,
        [since // HOUR * HOUR, until // HOUR * HOUR],
    )
    found: dict[Operation, dict[int, Hour]] = {}
    for service, name, hour, bucket, n, errors in rows.iter_rows():
        one = found.setdefault((service, name), {}).setdefault(hour, Hour())
        one.runs += n
        one.errors += errors
        one.buckets[bucket] = one.buckets.get(bucket, 0) + n
    return found


__all__ = ["HOUR", "Hour", "Operation", "added", "milliseconds", "read_hours"]
