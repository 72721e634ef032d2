"""The process: receivers, pipeline configuration, roles and the command line.

An OTLP request comes in by `receivers`, is stored by the engine in `engram.exporters`,
and is asked for through `cli`.
"""
