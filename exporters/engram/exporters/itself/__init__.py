"""What Engram tells of its own work, and what it changes of it: `notes`, `told`, `settings`.

A role notes what it did, and once a minute one log record of the scope `own.ITSELF` holds the sums.
The job `engram` reads them and is the only reader; what it decides comes back by `settings`.
"""
