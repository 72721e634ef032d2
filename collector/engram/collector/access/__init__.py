"""Who may ask and who may write: tokens and their scopes, Host and Origin checks, the audit log.

Standard library only: every role imports it.
"""

from __future__ import annotations

from engram.collector.access.audit import AuditLog, audit
from engram.collector.access.guard import Denied, Guard
from engram.collector.access.principal import LOCAL, Principal
from engram.collector.access.scopes import Scope
from engram.collector.access.tokens import Token, Tokens, Vault

__all__ = [
    "LOCAL",
    "AuditLog",
    "Denied",
    "Guard",
    "Principal",
    "Scope",
    "Token",
    "Tokens",
    "Vault",
    "audit",
]
