"""Whether a port may be opened to other machines: only where somebody has a token for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from engram.collector.access.scopes import OTLP, REST, Scope
from engram.collector.access.tokens import Tokens
from engram.collector.component import Kind
from engram.collector.config import Config
from engram.collector.registry import OtlpReceiver, is_loopback, split_endpoint
from engram.exporters.errors import ConfigError
from engram.exporters.home import Home


def exposed(endpoint: str) -> bool:
    """Whether other machines can reach an endpoint."""
    return not is_loopback(split_endpoint(endpoint)[0])


def check_exposure(home: Home, config: Config) -> None:
    """Refuse ports that other machines can reach and that nobody has a token for.

    Raises:
        ConfigError: with every such port.
    """
    if problems := list(_problems(Tokens(home), config)):
        raise ConfigError(problems)


def check_api(home: Home, endpoint: str) -> None:
    """The same for the port of `engram serve`.

    Raises:
        ConfigError: there is no token for it.
    """
    if exposed(endpoint) and not Tokens(home).any(REST):
        raise ConfigError([_refused("extensions.api", endpoint, REST)])


def _problems(tokens: Tokens, config: Config) -> Iterator[str]:
    receiver = config.settings(Kind.RECEIVER, "otlp", OtlpReceiver)
    protocols = None if receiver is None else receiver.protocols
    if protocols is not None and protocols.grpc is not None:
        wanted = OTLP - {Scope.BROWSER}
        if exposed(protocols.grpc.endpoint) and not tokens.any(wanted):
            yield _refused("receivers.otlp.protocols.grpc", protocols.grpc.endpoint, wanted)
    if protocols is not None and protocols.http is not None:
        keys = protocols.http.browser.keys
        if exposed(protocols.http.endpoint) and not (keys or tokens.any(OTLP)):
            yield _refused("receivers.otlp.protocols.http", protocols.http.endpoint, OTLP)
    api = config.api
    if api is not None and exposed(api.endpoint) and not tokens.any(REST):
        yield _refused("extensions.api", api.endpoint, REST)


def _refused(where: str, endpoint: str, scopes: Iterable[Scope]) -> str:
    best = next(one for one in (Scope.INGEST, Scope.READ) if one in scopes)
    return (
        f"{where}.endpoint: {endpoint!r} is reachable from other machines and nobody has a token "
        f"for it; make one with: engram token create --scope {best}, or listen on 127.0.0.1"
    )
