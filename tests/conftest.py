"""What holds for every test."""

from __future__ import annotations

import signal

# A shell starts background jobs with SIGINT ignored, and processes inherit that: Ctrl-C of a test,
# sent to itself or to a child, would do nothing, and the test would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)
