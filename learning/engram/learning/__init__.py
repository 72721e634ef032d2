"""Memories to insight: the search index kept from the lake, and search over it.

Reads the lake read-only and is the only writer of the LanceDB index.
"""
