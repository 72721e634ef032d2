"""Records to memories to store: decode, write-ahead log, rules, lake, index and embedding.

The engine in here is the only writer of a lake; everybody else attaches it read-only.
"""
