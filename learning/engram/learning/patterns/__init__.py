"""Log patterns: which messages say the same with other values.

    from engram.learning.patterns import mine
    found = mine(["disk 3 is full", "disk 41 is full", "bye"])
    found.templates[found.of[0]]  # 'disk <*> is full'

One configuration for all logs, no training, no state: the same messages give the same patterns in
any order and however often they are repeated. Values are masked by Polars, equal masked texts
become one, and only those are clustered: the cost follows the number of distinct masked texts.
"""

from __future__ import annotations

from engram.learning.patterns.clusters import clusters
from engram.learning.patterns.masks import WILDCARD, masked
from engram.learning.patterns.mine import Patterns, mine, pattern_id

__all__ = ["WILDCARD", "Patterns", "clusters", "masked", "mine", "pattern_id"]
