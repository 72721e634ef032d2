"""Baggage comes in and does not go out.

Who a request is for arrives as baggage and is copied to its telemetry. Sent on with every outgoing
request it would tell strangers; services of one trace learn it from the trace anyway.
`OTEL_PROPAGATORS=tracecontext,baggage` sends it on.
"""

from __future__ import annotations

from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagate import set_global_textmap
from opentelemetry.propagators import textmap
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator


class IncomingBaggage(W3CBaggagePropagator):
    """Reads baggage, writes none."""

    def inject(
        self,
        carrier: textmap.CarrierT,
        context: Context | None = None,
        setter: textmap.Setter[textmap.CarrierT] = textmap.default_setter,
    ) -> None:
        """Nothing."""


def keep_baggage_here() -> None:
    """The trace goes on to whoever is called, and nothing else."""
    set_global_textmap(CompositePropagator([TraceContextTextMapPropagator(), IncomingBaggage()]))


__all__ = ["IncomingBaggage", "keep_baggage_here"]
