"""What a user's app installs: names on the wire now, the distribution and the Python API later.

Imports OpenTelemetry and the standard library only.
"""
