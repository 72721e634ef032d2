"""The processors that change or drop records: what a pipeline lists between receivers and exporters.

They run behind the acknowledgement, on whole OTLP requests, in the order of the pipeline, and only
where some are listed. What they do depends on the request alone, so a replay does it again.
"""
