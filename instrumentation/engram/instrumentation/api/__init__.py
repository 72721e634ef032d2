"""What only the app knows, as plain OpenTelemetry events.

These are the functions of `engram.instrumentation`. Each call is one event named
`engram.<memory type>`, of which the collector makes one memory. Nothing here raises, waits or
touches the network, and without an SDK it does nothing.
"""
