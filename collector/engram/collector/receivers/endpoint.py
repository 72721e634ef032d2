"""Where a receiver listens: `host:port`, on loopback only where it does not ask for tokens."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from engram.exporters.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host and a port as configured; port 0 lets the system choose."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Read `host:port` or `[v6]:port`.

        Raises:
            ValueError: it is neither.
        """
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError(f"{text!r}: write an IPv6 address in brackets, as in [::1]:4318")
        if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise ValueError(f"{text!r} is not host:port, as in 127.0.0.1:4318")
        return cls(host, int(port))

    def addresses(self) -> list[str]:
        """The addresses of the host, in the order of the resolver.

        Raises:
            OSError: the name is unknown.
        """
        try:
            found = socket.getaddrinfo(self.host, None, type=socket.SOCK_STREAM)
        except UnicodeError as error:  # a label over 63 characters
            raise OSError(str(error)) from None
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def endpoint_problems(text: str, *, guarded: bool = False) -> Iterator[str]:
    """What is wrong with an endpoint: its grammar, its name, or who could reach it unasked."""
    try:
        endpoint = Endpoint.parse(text)
        addresses = endpoint.addresses()
    except ValueError as error:
        yield f"endpoint {error}"
        return
    except OSError as error:
        yield f"endpoint {text!r}: the host name does not resolve ({error})"
        return
    outside = [address for address in addresses if not _is_loopback(address)]
    if outside and not guarded:
        yield (
            f"endpoint {text!r} is refused: other machines could reach {', '.join(outside)} and "
            "there are no tokens yet; listen on 127.0.0.1, ::1 or localhost, or make a token with: "
            "engram token create --scope ingest"
        )


def reachable(text: str) -> bool:
    """Whether other machines can reach an endpoint, as far as it can be resolved."""
    try:
        return not all(map(_is_loopback, Endpoint.parse(text).addresses()))
    except (ValueError, OSError):
        return True


def bound(text: str, *, guarded: bool = False) -> tuple[list[str], int]:
    """The addresses to bind and the port, checked again: a name may have moved meanwhile.

    Raises:
        ConfigError: as `endpoint_problems`.
    """
    if problems := list(endpoint_problems(text, guarded=guarded)):
        raise ConfigError(problems)
    endpoint = Endpoint.parse(text)
    return endpoint.addresses(), endpoint.port


def listen(text: str, *, guarded: bool = False) -> list[socket.socket]:
    """Bind every address of an endpoint, without SO_REUSEPORT: a taken port is an error.

    A name may stand for an address family that this machine lacks; the others are enough.

    Raises:
        ConfigError: nothing can be bound, or the port is taken at one of the addresses.
    """
    addresses, port = bound(text, guarded=guarded)
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            missing = error
            continue
        try:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, port or (sockets[0].getsockname()[1] if sockets else 0)))
            sock.listen(1024)  # here, or two could bind the port and only one would hear of it
        except OSError as error:
            sock.close()
            missing = error
            if error.errno != errno.EADDRNOTAVAIL:
                break
        else:
            sockets.append(sock)
    if missing is not None and (not sockets or missing.errno == errno.EADDRINUSE):
        for sock in sockets:
            sock.close()
        raise _cannot_listen(text, port, missing) from None
    return sockets


def _cannot_listen(text: str, port: int, error: OSError) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ConfigError(
            [
                f"endpoint {text!r}: port {port} is already in use; stop the other program "
                "(another Engram or an OpenTelemetry Collector?) or set another endpoint"
            ]
        )
    return ConfigError([f"endpoint {text!r}: cannot listen on port {port}: {error.strerror}"])


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:  # a scoped address (fe80::1%eth0) is never loopback
        return False
