"""A program that calls models through the real clients; `test_genai.py` runs it."""
# ruff: noqa: D103, E402

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from opentelemetry import trace
from tests.instrumentation import providers

from engram.instrumentation.capture import genai, installed

providers.start("models")
for _ in range(2):  # safe to call twice
    installed["genai"] = genai.install()
assert not {"openai", "anthropic", "google.genai"} & set(sys.modules), "a capture imports nothing"

import anthropic
import openai
from google import genai as google
from google.genai import types
from opentelemetry.instrumentation.httpx import (
    HTTPX2ClientInstrumentor,
    HTTPXClientInstrumentor,
)

from engram.instrumentation.agents import agent

for http in (HTTPXClientInstrumentor(), HTTPX2ClientInstrumentor()):
    if not http.is_instrumented_by_opentelemetry:
        http.instrument()

LLM = os.environ["LLM"]
tracer = trace.get_tracer("app")
options: Any = {"api_key": "k", "max_retries": 0}
chat = openai.OpenAI(base_url=f"{LLM}/v1", **options)
achat = openai.AsyncOpenAI(base_url=f"{LLM}/v1", **options)
claude = anthropic.Anthropic(base_url=LLM, **options)
aclaude = anthropic.AsyncAnthropic(base_url=LLM, **options)
gemini = google.Client(api_key="k", http_options=types.HttpOptions(base_url=LLM))

traces: dict[str, str] = {}


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def tool(name: str) -> Any:
    function = {"name": name, "parameters": {"type": "object", "properties": {}}}
    return {"type": "function", "function": function}


def openai_chat() -> None:
    messages = [{"role": "system", "content": "Be nice"}, *user("say zebra-openai")]
    chat.chat.completions.create(model="gpt-x", messages=messages)


def openai_stream() -> None:
    stream = chat.chat.completions.create(
        model="gpt-x", messages=user("say zebra streamed words"), stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    for _ in stream:
        pass


def openai_stream_with() -> None:
    with chat.chat.completions.create(
        model="gpt-x", messages=user("say zebra with block"), stream=True
    ) as stream:
        for _ in stream:
            pass


async def openai_async() -> None:
    await achat.chat.completions.create(model="gpt-x", messages=user("say zebra async"))


async def openai_async_stream() -> None:
    stream = await achat.chat.completions.create(
        model="gpt-x", messages=user("say zebra async stream"), stream=True
    )
    async for _ in stream:
        pass


def openai_tool() -> None:
    messages = user('weather {"city": "Paris"}')
    first = chat.chat.completions.create(model="gpt-x", messages=messages, tools=[tool("weather")])
    call = first.choices[0].message.tool_calls[0]  # type: ignore[index]
    answered = {"role": "tool", "tool_call_id": call.id, "content": "zebra weather"}
    messages += [first.choices[0].message.model_dump(exclude_none=True), answered]
    chat.chat.completions.create(model="gpt-x", messages=messages, tools=[tool("weather")])


def openai_error() -> None:
    with contextlib.suppress(openai.BadRequestError):
        chat.chat.completions.create(model="gpt-x", messages=user("zebra fail 400"))


def openai_responses() -> None:
    chat.responses.create(model="gpt-x", input="say zebra response", instructions="Be brief")


def openai_responses_stream() -> None:
    for _ in chat.responses.create(model="gpt-x", input="say zebra response stream", stream=True):
        pass


def openai_embeddings() -> None:
    chat.embeddings.create(model="embed-x", input="zebra", encoding_format="float")


def anthropic_messages() -> None:
    claude.messages.create(
        model="claude-x", max_tokens=9, messages=user("say zebra-claude"), system="Be nice"
    )


def anthropic_stream() -> None:
    with claude.messages.stream(
        model="claude-x", max_tokens=9, messages=user("say zebra claude stream")
    ) as stream:
        for _ in stream.text_stream:
            pass


async def anthropic_async_stream() -> None:
    async with aclaude.messages.stream(
        model="claude-x", max_tokens=9, messages=user("say zebra claude async stream")
    ) as stream:
        async for _ in stream.text_stream:
            pass


def anthropic_tool() -> None:
    tools: Any = [{"name": "weather", "input_schema": {"type": "object"}}]
    claude.messages.create(
        model="claude-x", max_tokens=9, messages=user('weather {"city": "Rome"}'), tools=tools
    )


def anthropic_error() -> None:
    with contextlib.suppress(anthropic.RateLimitError):
        claude.messages.create(model="claude-x", max_tokens=9, messages=user("zebra fail 429"))


def anthropic_native() -> None:
    """A client that is told to report its calls itself: both do."""
    own = anthropic.Anthropic(base_url=LLM, open_telemetry={"traces": True}, **options)
    own.messages.create(model="claude-x", max_tokens=9, messages=user("say zebra told twice"))


def gemini_generate() -> None:
    gemini.models.generate_content(model="gemini-x", contents="say zebra-gemini")


def gemini_stream() -> None:
    for _ in gemini.models.generate_content_stream(
        model="gemini-x", contents="say zebra gemini stream"
    ):
        pass


async def gemini_async() -> None:
    await gemini.aio.models.generate_content(model="gemini-x", contents="say zebra gemini async")


def gemini_error() -> None:
    with contextlib.suppress(Exception):
        gemini.models.generate_content(model="gemini-x", contents="zebra fail 400")


def aurea_turn() -> None:
    with agent("AUREA", conversation="talk-1", user="ada"):
        chat.chat.completions.create(model="gpt-x", messages=user("say zebra I am AUREA"))


def custom_agent() -> None:
    with agent("AUREA", conversation="talk-2") as turn:
        turn.asked("zebra what is open?")
        turn.answered("zebra two orders are open")


def plain_otel() -> None:
    with tracer.start_as_current_span("invoke_agent AUREA") as span:
        said = [{"role": "assistant", "parts": [{"type": "text", "content": "told by OTel"}]}]
        span.set_attributes(
            {
                "gen_ai.operation.name": "invoke_agent",
                "gen_ai.agent.name": "AUREA",
                "gen_ai.conversation.id": "talk-3",
                "gen_ai.output.messages": json.dumps(said),
            }
        )


def plain_http() -> None:
    import httpx

    httpx.post(f"{LLM}/v1/chat/completions", json={"model": "g", "messages": user("zebra plain")})


CALLS: list[Callable[[], Any]] = [
    openai_chat, openai_stream, openai_stream_with, openai_async, openai_async_stream, openai_tool,
    openai_error, openai_responses, openai_responses_stream, openai_embeddings,
    anthropic_messages, anthropic_stream, anthropic_async_stream, anthropic_tool, anthropic_error,
    anthropic_native, gemini_generate, gemini_stream, gemini_async, gemini_error,
    aurea_turn, custom_agent, plain_otel, plain_http,
]  # fmt: skip


async def main() -> None:
    for call in CALLS:
        with tracer.start_as_current_span(call.__name__) as span:
            traces[call.__name__] = f"{span.get_span_context().trace_id:032x}"
            done = call()
            if asyncio.iscoroutine(done):
                await done


asyncio.run(main())
providers.stop()
sys.stdout.write(
    json.dumps({"traces": traces, "service": "models", "installed": installed["genai"]})
)
