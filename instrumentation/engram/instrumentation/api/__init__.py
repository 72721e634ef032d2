"""What only the app knows, as plain OpenTelemetry events: the functions of `engram.instrumentation`.

Each call is one event named `engram.<memory type>`; the collector makes one memory of it. Nothing
here raises, waits or touches the network, and without an SDK it does nothing.
"""
