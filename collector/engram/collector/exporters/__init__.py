"""The exporters that send on what arrived: `otlp`, `otlphttp` and `file`.

They read the write-ahead log behind the acknowledgement, each with a position of its own that
survives restarts. Nothing waits for them: neither a sender nor the `memory` exporter.
"""
