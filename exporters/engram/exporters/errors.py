"""The tree of errors. Each surface (HTTP, gRPC, command line) maps it in exactly one function."""

from __future__ import annotations


class EngramError(Exception):
    """Anything Engram itself refuses or cannot do. The text says what, where and what to do."""


class ConfigError(EngramError):
    """The operator's configuration is wrong. Carries every problem found, each with its place."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class StoreError(EngramError):
    """The home, the write-ahead log or the lake cannot be used."""


class HomeBusy(StoreError):
    """Another process writes to this home."""


class ModelUnavailable(StoreError):
    """A model that makes vectors cannot be loaded here. Search by words needs none."""


class NotFound(EngramError):
    """What was asked for is not here."""


class BadRequest(EngramError):
    """A sender's bytes are not what they claim to be. Never retryable."""


class TooLarge(BadRequest):
    """A sender's request is over the limit, as sent or inflated."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(
            f"request body is over the limit of {limit} bytes; send smaller batches or raise "
            "max_request_body_size (HTTP) or max_recv_msg_size_mib (gRPC)"
        )


class Overloaded(EngramError):
    """Nothing is wrong with the request, there is no room for it now. Always retryable."""

    def __init__(self, reason: str, retry_after_s: float = 1.0) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(reason)
