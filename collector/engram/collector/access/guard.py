"""The door of port 4319: is the request for us, from no strange page, and who asks?

Three checks, in this order. The Host header must name this server, or a page could reach it by a
name of its own that it lets point here (DNS rebinding). A request that a browser sends for a page
of another origin is refused, whatever it holds (CSRF). Then the token.

A token is asked for as soon as there is one that is good for these routes, and always where other
machines can reach the port. A wrong token is never taken for none.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import socket
from collections.abc import Mapping, Sequence
from typing import Any, Final

from engram.collector.access.own import OwnersPass
from engram.collector.access.principal import LOCAL, Principal
from engram.collector.access.rate import Rate
from engram.collector.access.scopes import REST, Scope
from engram.collector.access.tokens import Token, Tokens
from engram.exporters.home import Home

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_SAME_SITE: Final = frozenset({b"same-origin", b"none"})
_CHALLENGE: Final = b'Bearer realm="engram"'


class Denied(Exception):
    """A request that is not let in."""

    def __init__(
        self, status: int, kind: str, detail: str, headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        """A word for programs."""
        self.detail = detail
        self.headers = tuple(headers)


class Guard:
    """Lets requests of ASGI in, or raises `Denied`."""

    def __init__(
        self,
        home: Home,
        *,
        exposed: bool = False,
        hosts: Sequence[str] = (),
        rate_per_minute: int = 6000,
        tokens: Tokens | None = None,
    ) -> None:
        self.tokens = tokens or Tokens(home)
        self.own = OwnersPass(home)
        self._exposed = exposed
        self._hosts = _LOOPBACK | {host.lower() for host in hosts}
        if exposed:
            self._hosts |= {socket.gethostname().lower()}
        self._rate = Rate(rate_per_minute)

    @property
    def open(self) -> bool:
        """Whether programs of this machine need no token."""
        return not self._exposed and not self.tokens.any(REST)

    def admit(self, scope: Mapping[str, Any], wanted: Scope | None = None) -> Principal:
        """Who asks.

        Raises:
            Denied: the request is not let in: 401, 403 or 429.
        """
        headers = self.visitor(scope)
        principal = self._who(headers.get(b"authorization", []), scope)
        client = scope.get("client")
        address = str(client[0]) if client else ""
        if (wait := self._rate.wait(principal.token or address)) > 0:
            raise Denied(
                429, "rate", "too many requests; see extensions.api.rate_per_minute",
                [(b"retry-after", str(max(1, round(wait))).encode())],
            )  # fmt: skip
        if wanted is not None:
            require(principal, wanted)
        return principal

    def visitor(self, scope: Mapping[str, Any]) -> Mapping[bytes, list[bytes]]:
        """The headers of a request that is meant for us and comes from no strange page.

        Raises:
            Denied: it is not.
        """
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        host = self._host(headers.get(b"host", []))
        self._page(headers, host, scope["method"])
        return headers

    def _host(self, given: list[bytes]) -> str:
        host = given[0].decode("latin-1").lower() if len(given) == 1 else ""
        name, colon, port = host.rpartition(":")
        if host.endswith("]") or not colon:
            name, port = host, "0"
        bare = name.removeprefix("[").removesuffix("]")
        known = bare in self._hosts and (bare == "::1") == name.startswith("[")
        # An address of its own is no name that somebody could let point here.
        if not port.isdigit() or not (known or (self._exposed and _is_address(bare))):
            raise Denied(
                403, "host",
                "this is served to this machine only: use http://127.0.0.1 or localhost"
                if not self._exposed
                else f"this server is not called {host[:100]!r}; see extensions.api.allowed_hosts",
            )  # fmt: skip
        return host

    def _page(self, headers: Mapping[bytes, list[bytes]], host: str, method: str) -> None:
        """Refuse what a browser sends for somebody else's page."""
        origin = [one.decode("latin-1").lower() for one in headers.get(b"origin", [])]
        if any(one not in (f"http://{host}", f"https://{host}") for one in origin):
            raise Denied(403, "origin", f"pages of {origin[0][:100]} may not ask here")
        sites = headers.get(b"sec-fetch-site", [])
        if all(one in _SAME_SITE for one in sites):
            return
        # A link from elsewhere may open a page here, and nothing but a page.
        modes = headers.get(b"sec-fetch-mode", [])
        if method not in ("GET", "HEAD") or modes != [b"navigate"]:
            raise Denied(403, "origin", "pages of other sites may not ask here")

    def _who(self, given: list[bytes], scope: Mapping[str, Any]) -> Principal:
        method = scope["method"]
        secret = _secret(given, method)
        if secret is None:
            if self.open:
                return LOCAL
            detail = "this needs a token: Authorization: Bearer engram_…"
            raise Denied(401, "token", detail, _challenges(method))
        if self.own.shown(secret, scope):
            return LOCAL
        token = self.tokens.find(secret)
        if token is None:
            raise Denied(
                401, "token", "this token is unknown, revoked or expired",
                [(b"www-authenticate", _CHALLENGE + b', error="invalid_token"')],
            )  # fmt: skip
        return principal(token)


def principal(token: Token) -> Principal:
    """Who has shown this token."""
    return Principal(token.name, token.scopes, token.service, token.id)


def require(who: Principal, wanted: Scope) -> None:
    """Insist on a scope.

    Raises:
        Denied: 403, which names the scope.
    """
    if who.may(wanted):
        return
    if who is LOCAL:
        detail = f"this needs a token with the scope {wanted}: engram token create --scope {wanted}"
    else:
        detail = f"the token {who.name} has not the scope {wanted}"
    challenge = f', error="insufficient_scope", scope="{wanted}"'.encode()
    raise Denied(403, "scope", detail, [(b"www-authenticate", _CHALLENGE + challenge)])


def _secret(given: list[bytes], method: str) -> str | None:
    """The token that was shown; text that is none where there is something else."""
    if not given:
        return None
    kind, _, value = given[0].decode("latin-1").strip().partition(" ")
    if len(given) == 1 and kind.lower() == "bearer":
        return value.strip()
    if len(given) == 1 and kind.lower() == "basic" and method in ("GET", "HEAD"):
        # A browser asks its user: any name, and the token as password. Reads only, for a browser
        # would send it along with a form of somebody else's page.
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return ""


def _challenges(method: str) -> list[tuple[bytes, bytes]]:
    found = [(b"www-authenticate", _CHALLENGE)]
    if method in ("GET", "HEAD"):
        found.append((b"www-authenticate", b'Basic realm="engram"'))
    return found


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
