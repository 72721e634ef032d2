"""Six programs as their authors would write them; a stand-in plays the model. Run by the test."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from engram.instrumentation import MemoryService, apply_remedy_async, remedy

memory = MemoryService(timeout_s=20)
"""In a test on a busy machine; an app keeps the default of a second."""

TOLD: dict[str, Any] = {}


def model(prompt: str) -> tuple[str, float]:
    """A stand-in: it says how much it was given."""
    return f"I looked at {len(prompt)} characters", 0.8


# 1. A request handler ----------------------------------------------------------------------------


async def handle(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Intent, what is known of such requests, work, outcome."""
    began = time.perf_counter()
    intent = await memory.create_memory(
        user_id="system",
        title=f"Request intent: POST {path}",
        content=json.dumps({"path": path, "body": body}),
        memory_type="request_intent",
        tags=["request", "intent"],
        meta_data={"path": path},
        wait=True,
    )
    similar = await memory.search_memories(
        query=f"Request intent POST {path}", memory_type="request_intent"
    )
    result = {"ok": True, "seen": [hit.id for hit in similar if hit.id != intent.id]}
    await memory.create_memory(
        user_id="system",
        title=f"Request outcome: POST {path}",
        content=json.dumps(result),
        memory_type="request_outcome",
        tags=["request", "outcome"],
        meta_data={"duration_ms": (time.perf_counter() - began) * 1000, "intent": intent.id},
        wait=True,
    )
    return result


# 2. The executive assistant -----------------------------------------------------------------------


async def aurea(session_id: str, message: str) -> dict[str, Any]:
    """A turn with everything that memory has of the session."""
    await memory.create_memory(
        user_id=session_id, title=f"User: {message[:50]}", content=message,
        memory_type="aurea_conversation", tags=["conversation"], wait=True,
    )  # fmt: skip
    window = await memory.get_context_window(
        user_id=session_id, window_size=50, include_similar=True
    )
    answer, confidence = model(window.text + message)
    await memory.create_memory(
        user_id=session_id, title=f"AUREA: {answer[:50]}", content=answer,
        memory_type="aurea_response",
        meta_data={"model": "stand-in", "confidence": confidence}, wait=True,
    )  # fmt: skip
    return {"items": len(window), "tokens": window.token_count, "text": window.text}


# 3. A LangGraph node ------------------------------------------------------------------------------


class Node:
    """A node that looks at its own past before it runs."""

    name = "price_check"

    async def __call__(self, state: dict[str, Any]) -> dict[str, Any]:
        """Entry, past outcomes, work, outcome."""
        began = time.perf_counter()
        await memory.create_memory(
            title=f"node:{self.name} entry", content=json.dumps(state),
            memory_type="langgraph_node", wait=True,
        )  # fmt: skip
        past = await memory.search_memories(query=f"node:{self.name} outcome", limit=100)
        before = [one for one in past if one.meta_data.get("success") is not None]
        state = {**state, "price": 7, "runs_before": len(before)}
        await memory.create_memory(
            title=f"node:{self.name} outcome",
            content=json.dumps({"learned": "prices are cached"}),
            memory_type="langgraph_outcome",
            meta_data={"success": True, "duration_ms": (time.perf_counter() - began) * 1000},
            wait=True,
        )
        return state


# 4. A global error handler ------------------------------------------------------------------------

POOL = {"open": False}


@remedy("reopen the pool", handles="PoolClosed", verify=lambda error: POOL["open"])
def reopen(error: BaseException) -> None:
    """The registered fix."""
    POOL["open"] = True


class PoolClosed(RuntimeError):
    """What goes wrong."""


async def on_error(error: Exception) -> dict[str, Any]:
    """Remember it, ask what helped, apply what is registered, remember how that went."""
    kind = type(error).__name__
    failed = await memory.create_memory(
        title=f"{kind}: {error}", content=f"{kind}: {error} in checkout",
        memory_type="system_error", meta_data={"error_type": kind, "where": "checkout"}, wait=True,
    )  # fmt: skip
    similar = await memory.search_memories(
        query=f"{kind} {error}", memory_type="system_error", limit=10
    )
    solutions = await memory.search_memories(query=f"fix for {kind}", memory_type="error_solution")
    run = await apply_remedy_async(error)
    await memory.create_memory(
        title=f"{kind}: {run.outcome if run else 'no fix'}",
        content=f"after {failed.id}",
        memory_type="error_resolution",
        meta_data={"remedy": run.remedy if run else None, "fixed": bool(run and run.fixed)},
        wait=True,
    )
    return {
        "similar": len([one for one in similar if one.id != failed.id]),
        "solutions": [one.title for one in solutions],
        "outcome": run.outcome if run else None,
    }


# 5. An endpoint that learns -----------------------------------------------------------------------


async def endpoint(operation: str) -> dict[str, Any]:
    """Apply what was learned for this operation, measure, and look closer when it was slow."""
    began = time.perf_counter()
    learned = await memory.search_memories(query=operation, memory_type="optimization")
    cached = any(one.meta_data.get("strategy") == "cache" for one in learned)
    await asyncio.sleep(0 if cached else 1.05)
    ms = (time.perf_counter() - began) * 1000
    await memory.create_memory(
        title=f"{operation} took {ms:.0f} ms", content="", memory_type="performance_metric",
        meta_data={"duration_ms": ms, "cached": cached}, wait=True,
    )  # fmt: skip
    if not cached:
        await memory.create_memory(
            title=f"Cache the answers of {operation}", content="it is slow and always the same",
            memory_type="optimization", meta_data={"strategy": "cache"}, wait=True,
        )  # fmt: skip
    return {"cached": cached, "learned": len(learned)}


# 6. A decision engine, and the loop over what is recent -------------------------------------------


async def decide(context: str) -> dict[str, Any]:
    """The option that went best before; its outcome is recorded by id later."""
    past = await memory.search_memories(query=context, memory_type="business_decision", limit=100)
    good: dict[str, list[bool]] = {"express": [], "standard": []}
    for one in past:
        if one.meta_data.get("outcome") in ("good", "bad") and one.meta_data.get("chosen") in good:
            good[one.meta_data["chosen"]].append(one.meta_data["outcome"] == "good")
    rates = {name: sum(of) / len(of) for name, of in good.items() if of}
    chosen = max(rates, key=lambda name: rates[name]) if rates else "express"
    made = await memory.create_memory(
        title=f"Shipping: {chosen}", content=context, memory_type="business_decision",
        meta_data={"chosen": chosen, "confidence": rates.get(chosen, 0.5),
                   "historical_success_rate": rates.get(chosen)}, wait=True,
    )  # fmt: skip
    outcome = "good" if chosen == "express" else "bad"
    await memory.record_outcome(made.id, outcome, success=outcome == "good", wait=True)
    recent = await memory.get_recent_memories(memory_type="business_decision", hours=24)
    return {"chosen": chosen, "past": len(past), "rates": rates, "recent": len(recent),
            "id": made.id}  # fmt: skip


async def main() -> None:
    """All of them once."""
    TOLD["handler"] = await handle("/orders", {"sku": "tea"})
    TOLD["aurea"] = await aurea("session-1", "What did we agree with Northwind about delivery?")
    TOLD["node"] = await Node()({"sku": "tea"})
    try:
        raise PoolClosed("the connection pool of the database is closed")
    except PoolClosed as error:
        TOLD["error"] = await on_error(error)
    TOLD["endpoint"] = await endpoint("GET:/reports")
    TOLD["decision"] = await decide("Shipping for an order of Northwind")
    await memory.close()
    json.dump(TOLD, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
