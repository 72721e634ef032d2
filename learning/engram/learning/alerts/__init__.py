"""Alerts: what the jobs found goes to a webhook or a command, once, and not too often.

`settings` says to whom and of what, `choose` which insights, `outbox` when and how often, `hooks`
how; `alerter` is the loop. Only the standard library is imported here.
"""
