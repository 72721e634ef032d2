"""Every type of the taxonomy, from real OTLP: what makes it, and what only nearly does."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.exporters.remembering import BROWSER, log, remember, span

from engram.exporters.memories import MEMORY_TYPES

CHAT = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "m",
    "gen_ai.response.id": "r1",
    "gen_ai.conversation.id": "C1",
    "gen_ai.input.messages": json.dumps(
        [{"role": "user", "parts": [{"type": "text", "content": "Where is it?"}]}]
    ),
    "gen_ai.output.messages": json.dumps(
        [{"role": "assistant", "parts": [{"type": "text", "content": "On shelf B7"}]}]
    ),
}
AUREA = CHAT | {"gen_ai.agent.name": "AUREA"}
METADATA = {"langgraph_node": "plan", "langgraph_step": 1, "langgraph_checkpoint_ns": "plan:1"}
CELERY = {"messaging.message.id": "t1", "messaging.destination": "celery"}
KAFKA = {"messaging.system": "kafka", "messaging.destination.name": "orders"}
MEMORY = {"gen_ai.operation.name": "upsert_memory", "gen_ai.memory.store.id": "s1"}
RECORDS = json.dumps([{"id": "1", "content": "prefers tea"}, {"content": {"size": "XL"}}])


@dataclass(frozen=True)
class Case:
    """One record, the type it makes, and how that memory reads."""

    type: str
    record: Any
    title: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    resource: dict[str, Any] = field(default_factory=dict)
    scope: str = "lib"


# fmt: off
MADE = [
    Case("aurea_conversation", span(AUREA, kind=3), "Conversation C1 with AUREA"),
    Case("aurea_conversation", log(AUREA, event="gen_ai.client.inference.operation.details"),
         "Conversation C1 with AUREA"),
    Case("aurea_response", span(AUREA, kind=3), "AUREA: On shelf B7", {"conversation_id": "C1"}),
    Case("aurea_response", span(AUREA | {"gen_ai.operation.name": "invoke_agent"}),
         "AUREA: On shelf B7"),
    Case("user_interaction", span(CHAT, kind=3), "Where is it?"),
    Case("ai_response", span(CHAT, kind=3), "m: On shelf B7"),
    Case("system_error", span(kind=5, error="queue closed"), "queue closed"),
    Case("system_error", log({"exception.type": "OSError", "exception.message": "disk full"},
                             event="OSError", severity=17), "OSError in lib: disk full"),
    Case("system_error", span({"db.system": "mysql", "db.statement": "SELECT 1"}, kind=3,
                              error="Deadlock found", name="SELECT"),
         "Deadlock found", {"query": "SELECT 1"}),
    Case("system_error", log({"exception.type": "RateLimitError", "exception.message": "slow down",
                              "gen_ai.request.model": "m"},
                             event="gen_ai.client.operation.exception", severity=13),
         "RateLimitError in lib: slow down"),
    Case("system_event", log(body="disk is at 91 %", severity=13), "disk is at 91 %"),
    Case("system_event", log(event="session.start"), "session.start"),
    Case("system_event", log(event="device.app.lifecycle"), "device.app.lifecycle"),
    Case("system_event", log(body="Application startup complete."),
         "Application startup complete.", scope="uvicorn.error"),
    Case("performance_metric", log({"browser.web_vital.name": "lcp",
                                    "browser.web_vital.value": 5200.5,
                                    "browser.web_vital.rating": "poor", "url.path": "/cart"},
                                   event="browser.web_vital"),
         "lcp 5200.5 (poor) on /cart", {"importance": 0.7}),
    Case("performance_metric", span({"db.system.name": "postgresql", "db.operation.name": "SELECT",
                                     "db.collection.name": "orders", "db.query.text": "SELECT *"},
                                    kind=3, ms=1500),
         "Slow postgresql query: SELECT orders took 1500 ms", {"query": "SELECT *"}),
    Case("performance_metric", span({"db.system": "mysql", "db.operation": "UPDATE",
                                     "db.sql.table": "stock", "db.statement": "UPDATE stock"},
                                    kind=3, ms=1000),
         "Slow mysql query: UPDATE stock took 1000 ms", {"query": "UPDATE stock"}),
    Case("ai_insight", log({"gen_ai.evaluation.name": "relevance",
                            "gen_ai.evaluation.score.label": "pass",
                            "gen_ai.evaluation.score.value": 0.83,
                            "gen_ai.evaluation.explanation": "names the shelf"},
                           event="gen_ai.evaluation.result"),
         "relevance: pass (0.83)", {"content": "relevance\nnames the shelf"}),
    Case("ai_insight", span(MEMORY | {"gen_ai.memory.records": RECORDS}, kind=3),
         'Remembered: prefers tea {"size":"XL"}'),
    Case("ai_insight", log(event="engram.ai_insight", body="Mondays are slow"), "Mondays are slow"),
    Case("error_solution", log({"fix": "raise the pool size"}, event="engram.error_solution",
                               body="Fix for pool timeouts"), "Fix for pool timeouts"),
    Case("error_resolution", log({"engram.memory.type": "error_resolution"}, body="Back to normal"),
         "Back to normal"),
    Case("optimization", log(event="engram.optimization", body="24 selects in one request"),
         "24 selects in one request"),
    Case("optimization", span({"engram.memory.type": "performance_optimization"}, name="cache it"),
         "cache it"),
    Case("business_decision", log({"decision": "approve"}, event="engram.business_decision",
                                  body="Approved loan 42"), "Approved loan 42"),
    Case("business_decision", log({"feature_flag.key": "pricing",
                                   "feature_flag.result.variant": "b",
                                   "feature_flag.result.reason": "split"},
                                  event="feature_flag.evaluation"), "Flag pricing = b",
         {"index_as": "template", "reason": "split"}),
    Case("business_decision", span(events=[("feature_flag", {"feature_flag.key": "pricing",
                                                             "feature_flag.variant": "b"})]),
         "Flag pricing = b"),
    Case("business_decision", span({"gen_ai.operation.name": "plan", "gen_ai.agent.name": "ops",
                                    "gen_ai.output.messages": CHAT["gen_ai.output.messages"]}),
         "Plan of ops: On shelf B7"),
    Case("calculation_result", span({"gen_ai.operation.name": "execute_tool",
                                     "gen_ai.tool.name": "calculator",
                                     "gen_ai.tool.call.arguments": '{"x":1}',
                                     "gen_ai.tool.call.result": "19.20"}),
         "calculator = 19.20", {"inputs": '{"x":1}'}),
    Case("calculation_result", log(event="engram.calculation_result", body={"vat": 19.2}),
         "vat: 19.2"),
    Case("workflow_state", span({"gen_ai.operation.name": "invoke_workflow",
                                 "gen_ai.workflow.name": "refund"}), "refund: ok in 15 ms"),
    Case("workflow_state", span({"gen_ai.operation.name": "invoke_agent",
                                 "gen_ai.agent.name": "ops"}, error="no budget"),
         "Agent ops: failed in 15 ms", {"outcome": "error"}),
    Case("workflow_state", span({"cicd.pipeline.name": "deploy",
                                 "cicd.pipeline.result": "failure"}),
         "deploy: failure in 15 ms"),
    Case("workflow_state", span({"traceloop.span.kind": "workflow",
                                 "traceloop.entity.name": "rag"}), "rag: ok in 15 ms"),
    Case("workflow_state", span(CELERY | {"celery.action": "run", "celery.state": "SUCCESS",
                                          "celery.task_name": "shop.charge"}, kind=5),
         "shop.charge: SUCCESS", {"queue": "celery", "outcome": "ok"}),
    Case("langgraph_node", span({"langgraph.node": "plan", "langgraph.step": 1,
                                 "langgraph.entry_state": '{"q":1}'}), "plan: enter (step 1)",
         {"entry_state": '{"q":1}', "duration_ns": None}),
    Case("langgraph_node", log({"langgraph.node": "plan"}, event="engram.langgraph.node"),
         "plan: enter"),
    Case("langgraph_node", span({"gen_ai.operation.name": "execute_task",
                                 "gen_ai.task.name": "plan",
                                 "traceloop.entity.input": '{"q":1}'}), "plan: enter",
         {"entry_state": '{"q":1}'}),
    Case("langgraph_node", span({"openinference.span.kind": "CHAIN",
                                 "metadata": json.dumps(METADATA), "input.value": "in"}),
         "plan: enter (step 1)"),
    Case("langgraph_outcome", span({"langgraph.node": "plan", "langgraph.outcome": '{"a":2}'}),
         "plan ✓ 15 ms", {"outcome": "ok", "duration_ns": 15_000_000}),
    Case("langgraph_outcome", span({"langgraph.node": "bad", "langgraph.success": False,
                                    "error.type": "ValueError"}, error="exploded"),
         "bad ✗ ValueError", {"outcome": "error", "importance": 0.85}),
    Case("langgraph_outcome", span({"langgraph.node": "ask", "langgraph.success": True},
                                   error="GraphInterrupt"), "ask ✓ 15 ms", {"outcome": "ok"}),
    Case("workflow_state", span({"gen_ai.operation.name": "invoke_workflow",
                                 "gen_ai.workflow.name": "approval", "langgraph.interrupted": True,
                                 "langgraph.interrupt": '"ok?"'}),
         'approval: waiting for "ok?"', {"state": "waiting", "outcome": None}),
    Case("workflow_state", span({"gen_ai.operation.name": "invoke_agent",
                                 "gen_ai.agent.name": "AUREA", "langgraph.interrupted": True}),
         "Agent AUREA: waiting", {"state": "waiting"}),
    Case("request_intent", span({"http.method": "POST", "http.route": "/ask"}, kind=2),
         "Intent: POST /ask"),
    Case("request_intent", span({"engram.request.arguments": '{"q":1}'}, name="fastapi.endpoint",
                                parent_span_id=bytes([2] * 8)), "Intent: fastapi.endpoint"),
    Case("request_outcome", span({"http.request.method": "GET", "url.path": "/x",
                                  "http.response.status_code": 404}, kind=2),
         "GET /x → 404 in 15 ms"),
    Case("user_action", log({"browser.css_selector": "#buy", "url.path": "/cart",
                             "browser.element.attributes": {"data-otel-id": "7"}},
                            event="browser.user_action.click"), "click #buy on /cart"),
    Case("user_action", log({"browser.css_selector": "form", "url.path": "/cart"},
                            event="browser.user_action.submit"), "submit form on /cart",
         {"importance": 0.45}),
    Case("user_action", log({"app.widget.name": "Pay"}, event="app.widget.click"), "click Pay"),
    Case("user_action", span({"event_type": "click", "target_xpath": "//b",
                              "http.url": "https://shop.io/cart?q=1"}, name="click"),
         "click //b on /cart", resource=BROWSER),
    Case("page_view", log({"url.full": "https://shop.io/cart?token=1",
                           "browser.navigation.type": "push"}, event="browser.navigation"),
         "Viewed /cart", {"navigation": "push"}),
    Case("page_view", span({"http.url": "https://shop.io/"}, name="documentLoad"), "Viewed /",
         resource=BROWSER),
    Case("ui_error", log({"exception.type": "TypeError", "exception.message": "x is undefined"},
                         event="exception"), "TypeError in lib: x is undefined", resource=BROWSER),
    Case("ui_error", log({"exception.message": "out of memory"}, event="app.crash"),
         "out of memory", resource={"device.id": "d1"}),
    Case("api_call", span({"http.method": "GET", "http.url": "https://a.io/v1?k=1",
                           "http.status_code": 200}, kind=3), "GET a.io/v1 → 200 (15 ms)"),
    Case("api_call", span({"rpc.system": "grpc", "rpc.service": "Cart", "rpc.method": "Add",
                           "rpc.grpc.status_code": 0, "net.peer.name": "cart"}, kind=3),
         "cart Cart/Add → 0 (15 ms)"),
    Case("api_call", span({"gen_ai.operation.name": "execute_tool",
                           "gen_ai.tool.name": "find_shelf"}), "Tool find_shelf → ok (15 ms)"),
    Case("api_call", span({"openinference.span.kind": "TOOL", "tool.name": "find_shelf",
                           "output.value": "B7"}), "Tool find_shelf → ok (15 ms)",
         {"result": "B7"}),
    Case("api_call", span({"gen_ai.operation.name": "search_memory",
                           "gen_ai.memory.store.id": "s1", "gen_ai.memory.record.count": 3,
                           "gen_ai.memory.query.text": "tea?"}, kind=3),
         "search_memory s1 → 3 records (15 ms)", {"query": "tea?"}),
    Case("webhook_event", span({"http.request.method": "POST", "http.route": "/hooks/github",
                                "http.request.header.x-github-event": ["push"],
                                "http.request.header.x-github-delivery": ["d1"],
                                "http.response.status_code": 200}, kind=2),
         "Webhook github push → 200", {"id": "d1"}),
    Case("webhook_event", span({"http.method": "POST", "http.target": "/webhook?x=1",
                                "http.status_code": 500}, kind=2), "Webhook /webhook → 500",
         {"outcome": "error", "importance": 0.8}),
    Case("webhook_event", span({"cloudevents.event_type": "order.paid",
                                "cloudevents.event_source": "/pay"}, kind=2),
         "Webhook /pay order.paid → ok"),
    Case("integration_sync", span(KAFKA | {"messaging.operation.type": "process",
                                           "messaging.message.id": "m1"}, kind=5),
         "Message from orders → ok (15 ms)", {"system": "kafka"}),
    Case("integration_sync", span({"messaging.system": "rabbitmq", "messaging.destination": "mail",
                                   "messaging.operation": "publish"}, kind=4),
         "Message to mail", {"outcome": None}),
    Case("integration_sync", span(CELERY | {"celery.action": "run", "celery.state": "FAILURE",
                                            "celery.task_name": "shop.import_prices"}, kind=5,
                                  error="no file"), "Sync shop.import_prices: FAILURE",
         {"outcome": "error", "importance": 0.8}),
    Case("integration_sync", span({"faas.trigger": "timer", "faas.name": "nightly-export"}, kind=2),
         "Sync nightly-export: ok"),
]

NEARLY = [
    Case("aurea_conversation", span({k: v for k, v in AUREA.items() if "conversation" not in k})),
    Case("aurea_conversation", span(CHAT | {"gen_ai.agent.name": "aurea-tester"})),
    Case("aurea_response", span(CHAT, kind=3)),  # nobody says that the assistant spoke
    Case("aurea_response", span(AUREA | {"gen_ai.output.messages": "[]"})),
    Case("user_interaction", span(CHAT | {"gen_ai.operation.name": "embeddings"})),
    Case("user_interaction", log({"gen_ai.system": "openai"}, event="gen_ai.system.message",
                                 body={"content": "Be nice"})),
    Case("ai_response", span(CHAT | {"gen_ai.operation.name": "create_agent"})),
    Case("ai_response", span({"openinference.span.kind": "EMBEDDING", "llm.model_name": "m"})),
    Case("system_error", span(kind=4, error="x")),
    Case("system_error", span(name="ok")),
    Case("system_error", log({"exception.type": "E"}, event="exception"), resource=BROWSER),
    Case("system_event", log(body="all is well")),
    Case("system_event", log(event="browser.navigation")),
    Case("system_event", log(event="gen_ai.system.message")),
    Case("performance_metric", log({"browser.web_vital.name": "lcp"}, event="web_vital")),
    Case("performance_metric", span({"db.system.name": "redis"}, kind=3, ms=999)),
    Case("ai_insight", span(MEMORY, kind=3)),  # content was not captured
    Case("ai_insight", span({"gen_ai.operation.name": "delete_memory",
                             "gen_ai.memory.records": RECORDS})),
    Case("ai_insight", log(event="engram.ai_insight", body="buy more"), resource=BROWSER),
    Case("error_solution", log(event="engrams.error_solution", body="x")),
    Case("error_solution", log(event="engram.error_solution", body="x"), resource=BROWSER),
    Case("error_resolution", log({"memory.type": "error_resolution"}, body="ok", severity=13)),
    Case("optimization", log({"engram.memory.type": "Optimization!"})),
    Case("business_decision", log({"decision": "approve"}, event="business_decision")),
    Case("business_decision", log({"feature_flag.key": "x"}, event="feature_flag.error")),
    Case("calculation_result", span({"gen_ai.operation.name": "execute_tool",
                                     "gen_ai.tool.name": "calculator"})),  # without its result
    Case("calculation_result", span({"gen_ai.operation.name": "execute_tool",
                                     "gen_ai.tool.name": "find_shelf",
                                     "gen_ai.tool.call.result": "B7"})),
    Case("workflow_state", span({"gen_ai.operation.name": "create_agent",
                                 "gen_ai.agent.name": "ops"})),
    Case("workflow_state", span({"traceloop.span.kind": "task", "traceloop.entity.name": "rag"})),
    Case("workflow_state", span(CELERY | {"celery.action": "revoke", "celery.task_name": "a"})),
    Case("langgraph_node", span({"openinference.span.kind": "LLM", "llm.model_name": "m",
                                 "metadata": json.dumps(METADATA)})),
    Case("langgraph_node", span({"openinference.span.kind": "CHAIN", "metadata": "{cut"})),
    Case("langgraph_outcome", log({"langgraph.node": "plan"}, event="engram.langgraph.node")),
    Case("langgraph_outcome", span({"langgraph.node": "ask", "langgraph.interrupted": True})),
    Case("request_intent", span({"http.method": "POST", "http.route": "/ask"}, kind=3)),
    Case("request_outcome", span({"http.method": "POST", "http.route": "/ask"}, kind=1)),
    Case("user_action", log({"browser.css_selector": "#b"}, event="browser.scroll")),
    Case("user_action", span({"event_type": "click", "target_xpath": "//b"})),  # no browser
    Case("page_view", span({"http.url": "https://shop.io/"}, name="documentFetch"),
         resource=BROWSER),
    Case("ui_error", log({"exception.type": "TypeError"}, event="exception")),
    Case("ui_error", log(body="blocked", severity=13), resource=BROWSER),
    Case("api_call", span({"http.method": "GET"}, kind=2)),
    Case("api_call", span({"http.method": "POST", "engram.transport": True}, kind=3)),
    Case("system_error", span({"http.method": "POST", "http.status_code": 500,
                               "engram.transport": True}, kind=3, error="x")),
    Case("system_event", log({"http.request.method": "GET"}, event="engram.request_intent")),
    Case("api_call", span({"db.system": "elasticsearch", "http.method": "POST"}, kind=3)),
    Case("api_call", span({"gen_ai.operation.name": "upsert_memory"}, kind=3)),
    Case("webhook_event", span({"http.route": "/hooks/github"}, kind=3)),
    Case("webhook_event", span({"http.route": "/hookshop/{id}"}, kind=2)),
    Case("webhook_event", span({"http.route": "/items", "url.path": "/hooks"}, kind=2)),
    Case("integration_sync", span(KAFKA | {"messaging.operation.type": "receive"}, kind=5)),
    Case("integration_sync", span(KAFKA, kind=1)),
    Case("integration_sync", span(CELERY | {"celery.action": "run",
                                            "celery.task_name": "shop.important"}, kind=5)),
]
# fmt: on


@pytest.mark.parametrize("case", MADE, ids=lambda case: f"{case.type}: {case.title}")
def test_makes(case: Case) -> None:
    """The record makes a memory of this type with these words."""
    found = remember(case.record, resource=case.resource, scope=case.scope)
    (memory,) = [m for m in found if m["type"] == case.type]
    assert memory["title"] == case.title
    attributes = json.loads(memory["attributes"])
    for name, expected in case.fields.items():
        seen = memory[name] if name in memory and name != "id" else attributes[name]
        assert seen == (pytest.approx(expected) if isinstance(expected, float) else expected), name


@pytest.mark.parametrize("case", NEARLY, ids=[f"{case.type}-{i}" for i, case in enumerate(NEARLY)])
def test_makes_not(case: Case) -> None:
    """The record looks like one that makes this type, and makes none."""
    found = remember(case.record, resource=case.resource, scope=case.scope)
    assert case.type not in [m["type"] for m in found]


def test_every_type_has_both() -> None:
    """No type of the taxonomy is without a positive and a near-miss case."""
    assert {case.type for case in MADE} == set(MEMORY_TYPES)
    assert {case.type for case in NEARLY} == set(MEMORY_TYPES)


def test_browser_claims() -> None:
    """What a browser claims to conclude is kept, but only as a claim."""
    (memory,) = remember(log(event="engram.error_solution", body="pay me"), resource=BROWSER)
    assert memory["type"] == "system_event"
    assert "claimed:error_solution" in memory["tags"]
    assert memory["trust"] == "browser"
