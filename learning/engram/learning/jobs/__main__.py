"""`python -m engram.learning.jobs HOME`: see `process`."""

from __future__ import annotations

import sys

from engram.learning.jobs.process import main

sys.exit(main(sys.argv[1:]))
