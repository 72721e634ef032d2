"""Whether a sender of OTLP has shown a token for it: the same for both protocols."""

from __future__ import annotations

from google.rpc.code_pb2 import Code

from engram.collector.access.scopes import Scope, allow
from engram.collector.access.tokens import Tokens
from engram.exporters.errors import StoreError


def sender_problem(tokens: Tokens, authorization: str) -> tuple[int, str]:
    """A `google.rpc.Code` and why, where the sender is refused; else 0 and nothing."""
    kind, _, secret = authorization.strip().partition(" ")
    if kind.lower() != "bearer" or not secret:
        return Code.UNAUTHENTICATED, (
            "this needs a token with the scope ingest; "
            "OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20engram_..."
        )
    try:
        token = tokens.find(secret.strip())
    except StoreError as error:  # nobody is let in, and telemetry is kept by its sender
        return Code.UNAUTHENTICATED, str(error)
    if token is None:
        return Code.UNAUTHENTICATED, "this token is unknown, revoked or expired"
    if not allow(token.scopes, Scope.INGEST):
        return Code.PERMISSION_DENIED, f"the token {token.name} has not the scope ingest"
    return Code.OK, ""
