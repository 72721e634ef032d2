"""Model calls through the real clients: what is remembered of each, and what never is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.instrumentation.programs import Ran, run

ASKED = ["ai_response", "user_interaction"]
FAILED = ["ai_response", "system_error", "user_interaction"]
TURN = ["aurea_conversation", "aurea_response"]
EXPECTED = {
    **dict.fromkeys(
        (
            "openai_chat", "openai_stream", "openai_stream_with", "openai_async",
            "openai_async_stream", "openai_responses", "openai_responses_stream",
            "anthropic_messages", "anthropic_stream", "anthropic_async_stream", "anthropic_tool",
            "anthropic_native", "gemini_generate", "gemini_stream", "gemini_async",
        ),
        ASKED,
    ),
    "openai_tool": ["ai_response", *ASKED],  # two calls, and the second one asks nothing new
    **dict.fromkeys(("openai_error", "anthropic_error", "gemini_error"), FAILED),
    "aurea_turn": ["ai_response", *TURN, "user_interaction"],
    "custom_agent": [*TURN, "user_interaction"],
    "plain_otel": TURN,
    "plain_http": ["api_call"],
}  # fmt: skip


@pytest.fixture(scope="module", params=["own providers", "engram run"])
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Every call, in an app that sets OpenTelemetry up and in one that does not."""
    folder = tmp_path_factory.mktemp("genai")
    return run("genai_app.py", folder, zero_code=request.param == "engram run")


@pytest.mark.parametrize("case", EXPECTED)
def test_each_call_is_remembered_exactly_once(ran: Ran, case: str) -> None:
    """One ai_response and one user_interaction for each call, whichever way it is made."""
    http = (
        case != "plain_http"
    )  # the HTTP calls below are told beside, by their own instrumentation
    made = [one for one in ran.types(case) if not (http and one == "api_call")]
    assert made == EXPECTED[case]


@pytest.mark.parametrize(
    ("case", "words", "tokens"),
    [
        ("openai_chat", "zebra-openai", (2, 1)),
        ("openai_stream", "zebra streamed words", (4, 3)),
        ("openai_stream_with", "zebra with block", (None, None)),  # the stream tells no usage
        ("openai_async_stream", "zebra async stream", (None, None)),
        ("openai_responses", "zebra response", (3, 2)),
        ("openai_responses_stream", "zebra response stream", (4, 3)),
        ("anthropic_messages", "zebra-claude", (2, 1)),
        ("anthropic_stream", "zebra claude stream", (4, 3)),
        ("anthropic_async_stream", "zebra claude async stream", (5, 4)),
        ("gemini_generate", "zebra-gemini", (2, 1)),
        ("gemini_stream", "zebra gemini stream", (4, 3)),
        ("gemini_async", "zebra gemini async", (4, 3)),
    ],
)
def test_an_answer_has_words_and_tokens(
    ran: Ran, case: str, words: str, tokens: tuple[int | None, int | None]
) -> None:
    """The whole answer and its tokens, of plain and streamed calls alike."""
    answer = ran.one(case, "ai_response")
    assert answer["content"] == words
    assert answer["outcome"] == "ok"
    told = answer["attributes"]
    assert (told.get("input_tokens"), told.get("output_tokens")) == tokens
    assert ran.one(case, "user_interaction")["content"] == f"say {words}"


def test_tool_calls(ran: Ran) -> None:
    """What the model wants to be called, with its arguments."""
    first = ran.of("openai_tool", "ai_response")[0]
    assert first["title"] == 'gpt-x calls weather({"city":"Paris"})'
    assert "weather" in first["attributes"]["tool_calls"][0]["name"]
    assert ran.one("anthropic_tool", "ai_response")["title"].startswith("claude-x calls weather(")


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        ("openai_error", "openai.BadRequestError"),
        ("anthropic_error", "anthropic.RateLimitError"),
        ("gemini_error", "400"),
    ],
)
def test_a_failed_call(ran: Ran, case: str, kind: str) -> None:
    """The model call failed, and the error is one memory of its own."""
    answer = ran.one(case, "ai_response")
    assert (answer["outcome"], answer["attributes"]["error_type"]) == ("error", kind)
    assert "told to fail" in ran.one(case, "system_error")["content"]


def test_the_assistant_through_a_real_client(ran: Ran) -> None:
    """A model call in an agent's turn is the agent's answer, in its conversation, of its user."""
    answer = ran.one("aurea_turn", "aurea_response")
    assert (answer["content"], answer["conversation_id"]) == ("zebra I am AUREA", "talk-1")
    assert ran.one("aurea_turn", "ai_response")["attributes"]["agent"] == "AUREA"
    assert ran.one("aurea_turn", "aurea_conversation")["user_id"] == "ada"


def test_a_custom_agent_without_a_client(ran: Ran) -> None:
    """Three lines make the question, the answer and the conversation."""
    assert ran.one("custom_agent", "user_interaction")["title"] == "zebra what is open?"
    assert ran.one("custom_agent", "user_interaction")["conversation_id"] == "talk-2"
    assert ran.one("custom_agent", "aurea_response")["content"] == "zebra two orders are open"


def test_a_version_cap_does_not_cost_gemini(ran: Ran) -> None:
    """The capture says that it went beyond the declared bound, and that it looked first."""
    told = ran.said["installed"]
    assert "instrumented (declared for google-genai" in told
    assert "forced after a check of its methods" in told
    assert "content on (EVENT_ONLY)" in told


def test_content_off(tmp_path: Path) -> None:
    """With ENGRAM_CAPTURE_CONTENT=false the calls are counted, and no word is anywhere."""
    ran = run("genai_app.py", tmp_path, ENGRAM_CAPTURE_CONTENT="false")
    assert ran.one("openai_chat", "ai_response")["title"] == "gpt-x: content not captured"
    assert ran.one("gemini_stream", "ai_response")["attributes"]["output_tokens"] == 3
    assert ran.one("anthropic_messages", "ai_response")["attributes"]["input_tokens"] == 2
    assert "user_interaction" not in {type_ for case in ran.memories for type_ in ran.types(case)}
    assert not found("zebra", ran.home)
    assert found("gpt-x", ran.home), "the search itself finds nothing"


def found(word: str, home: Path) -> list[str]:
    """The files of a home with a word in them, and its lake's rows with it."""
    import contextlib

    from engram.exporters.home import Home
    from engram.exporters.lake.attach import attach_read_only

    files = subprocess.run(["grep", "-rla", word, str(home)], capture_output=True, text=True)
    with contextlib.closing(attach_read_only(Home(home))) as db:  # Parquet is compressed
        rows = [
            table
            for table in ("spans", "logs", "memories")
            for (text,) in db.execute(f"SELECT CAST(t AS VARCHAR) FROM {table} t").fetchall()
            if word in text
        ]
    return files.stdout.split() + rows
