"""The processors that change or drop records, between the log and the exporters.

They run behind the acknowledgement, on whole OTLP requests, in the order of the pipeline, and only
where some are listed. What they do depends on the request alone, so a replay does it again.
"""
