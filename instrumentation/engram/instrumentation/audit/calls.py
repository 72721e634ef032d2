"""LLM calls and LangGraph nodes: which are seen from outside, which are not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Final

from . import marks
from .code import Code, Module, Place, Scope
from .findings import Finding, Kind, Verdict

_BOTH: Final = "user_interaction and ai_response"
_OPENAI: Final = r"^openai\.(?:(?:.*\.)?(?:Async)?(?:Azure)?(?:OpenAI|Client|AzureOpenAI)\(\)\.)?"
_WAYS: Final = r"(?:with_raw_response\.|with_streaming_response\.|with_options\(\)\.)?"
_ANTHROPIC: Final = r"^anthropic\.(?:.*\.)?(?:Async)?(?:Anthropic|Client)\w*\(\)\."
_GOOGLE: Final = r"^google\.genai\.(?:.*\.)?Client\(\)\.(?:aio\.)?"
_SEEN: Final = (
    (
        "openai",
        re.compile(
            _OPENAI
            + _WAYS
            + r"(?:beta\.)?(?:chat\.completions|responses|embeddings)\."
            + _WAYS
            + r"(?:create|parse|stream)$"
        ),
    ),
    (
        "anthropic",
        re.compile(
            _ANTHROPIC + _WAYS + r"(?:beta\.)?messages\." + _WAYS + r"(?:create|stream|parse)$"
        ),
    ),
    (
        "google-genai",
        re.compile(
            _GOOGLE + r"(?:models\.(?:generate_content(?:_stream)?|embed_content)"
            r"|chats\.create\(\)\.send_message(?:_stream)?)$"
        ),
    ),
)
"""Calls whose question, answer and tokens the official instrumentations record."""

_UNSEEN: Final = (
    re.compile(
        _OPENAI + r"(?:beta\.)?"
        r"(?:completions|images|audio\.\w+|batches|threads(?:\.\w+)*|assistants|moderations)"
        r"\.(?:create|generate|edit|run|stream|parse|create_and_run\w*|create_and_poll)$"
    ),
    re.compile(_ANTHROPIC + r"(?:beta\.)?(?:completions\.create|messages\.batches\.create)$"),
    re.compile(_GOOGLE + r"(?:models\.generate_(?:images|videos)|batches\.create)$"),
    re.compile(
        r"^litellm\.(?:a?completion|a?text_completion|a?embedding|a?responses|Router\(\)\.a?completion)$"
    ),
    re.compile(r"^ollama\.(?:(?:Async)?Client\(\)\.)?(?:chat|generate|embed|embeddings)$"),
    re.compile(r"^mistralai\.(?:.*\.)?Mistral\(\)\.(?:chat|fim|embeddings)\.\w+$"),
    re.compile(r"^cohere\.(?:Async)?Client(?:V2)?\(\)\.(?:chat|chat_stream|generate|embed)$"),
    re.compile(r"^(?:groq|together)\.(?:Async)?(?:Groq|Together)\(\)\.chat\.completions\.create$"),
    re.compile(r"^boto3\.client\(\)\.(?:invoke_model|converse)(?:_with_response_stream|_stream)?$"),
    re.compile(
        r"^huggingface_hub\.(?:Async)?InferenceClient\(\)\.(?:chat_completion|text_generation)$"
    ),
    re.compile(
        r"^(?:vertexai\.generative_models|google\.generativeai)\.GenerativeModel\(\)\.\w*generate_content\w*$"
    ),
)
"""Calls of models that nothing of the base installation instruments."""

_CHAT: Final = re.compile(
    r"^(langchain\w*)\.(?:.*\.)?((?:Azure|Google\w*|Vertex)?Chat\w+|init_chat_model|AzureOpenAI|OpenAI)\(\)"
    r"(?:\.(?:bind_tools|bind|with_structured_output|with_retry|with_config|with_fallbacks|configurable_fields)\(\))*"
    r"\.(?:invoke|ainvoke|stream|astream|batch|abatch|generate|agenerate|predict)$"
)
_BENEATH: Final = {
    "langchain_openai": "openai",
    "langchain_anthropic": "anthropic",
    "langchain_google_genai": "google-genai",
}
"""Chat models, and the client beneath that is instrumented."""

_NO_MODEL: Final = frozenset({"ChatPromptTemplate", "ChatMessageHistory", "ChatMessage"})
_HOSTS: Final = re.compile(
    r"https?://(?:[\w.-]*\.)?(?:api\.openai\.com|openai\.azure\.com|api\.anthropic\.com|"
    r"generativelanguage\.googleapis\.com|aiplatform\.googleapis\.com|api\.mistral\.ai|api\.groq\.com|"
    r"api\.cohere\.(?:ai|com)|api\.together\.xyz|openrouter\.ai|api\.deepseek\.com|api\.x\.ai)\b"
)
_HTTP: Final = re.compile(
    r"^(?:httpx2?|requests|aiohttp|urllib3)\.(?:(?:Async)?Client\(\)\.|(?:\w+\.)?Session\(\)\.|ClientSession\(\)\."
    r"|PoolManager\(\)\.)?(?:get|post|put|request|stream)$"
)
_GRAPH: Final = re.compile(r"^langgraph\.(?:.*\.)?(?:StateGraph|MessageGraph|Graph)\(\)")
_FUNCTIONAL: Final = re.compile(r"^langgraph\.func(?:\.\w+)?\.(entrypoint|task)(\(\))?$")


def find_llm(code: Code, module: Module, instrumented: frozenset[str]) -> Iterator[Finding]:
    """Calls of models."""
    for place in code.places[module.file]:
        call = place.node
        if not isinstance(call, ast.Call):
            continue
        path = code.resolve(call.func, place.scope)
        if path is None:
            continue
        told = _llm(path, call, code, place.scope, instrumented)
        if told is None:
            continue
        verdict, why, do = told
        if verdict is not Verdict.ZERO_CODE and place.function is not None:
            around = _outside(place)
            said = marks.of_function(place.function, code, around, levels=1)
            if said:
                verdict, why, do = Verdict.EXPLICIT, f"its function says {said}", ""
        model = _model(call, code, place.scope)
        yield Finding(
            file=module.file,
            line=call.lineno,
            kind=Kind.LLM,
            name=path.replace("()", "") + (f" ({model})" if model else ""),
            verdict=verdict,
            why=why,
            do=do,
            seen_as=(model,) if model else (),
        )


def _llm(
    path: str, call: ast.Call, code: Code, scope: Scope, instrumented: frozenset[str]
) -> tuple[Verdict, str, str] | None:
    by_hand = "record question and answer yourself: docs/ai.md, or use a client that is seen"
    for name, pattern in _SEEN:
        if pattern.match(path):
            if name in instrumented:
                return (
                    Verdict.ZERO_CODE,
                    f"user_interaction and ai_response, by the {name} client",
                    "",
                )
            return Verdict.PARTIAL, f"nothing instruments {name}", f"instrument {name}"
    if any(pattern.match(path) for pattern in _UNSEEN):
        return (
            Verdict.PARTIAL,
            "not instrumented: at most an api_call of the HTTP request, without what was said",
            by_hand,
        )
    chat = _CHAT.match(path)
    if chat and chat[2] not in _NO_MODEL:
        beneath = _BENEATH.get(chat[1])
        if beneath in instrumented and beneath is not None:
            return (
                Verdict.ZERO_CODE,
                f"{_BOTH}, by {beneath} beneath it",
                "",
            )
        return (
            Verdict.PARTIAL,
            f"the client beneath {chat[2]} is not known to be instrumented",
            "pip install opentelemetry-instrumentation-genai-langchain",
        )
    if _HTTP.match(path):
        texts = (code.text(one, scope) for one in (*call.args, *(w.value for w in call.keywords)))
        if any(text and _HOSTS.match(text) for text in texts):
            return (
                Verdict.PARTIAL,
                "plain HTTP: an api_call of the request, without what was asked and answered",
                by_hand,
            )
    return None


def _model(call: ast.Call, code: Code, scope: Scope) -> str | None:
    for word in call.keywords:
        if word.arg in ("model", "modelId", "model_id"):
            return code.text(word.value, scope)
    return None


def _outside(place: Place) -> Scope:
    """The scope that holds the function of a place."""
    scope = place.scope
    while scope.parent is not None and scope.node is not place.function:
        scope = scope.parent
    return scope.parent or scope


def find_nodes(code: Code, module: Module) -> Iterator[Finding]:
    """Nodes of LangGraph graphs, and functions of its functional API."""
    for place in code.places[module.file]:
        node = place.node
        if isinstance(node, ast.Call):
            found = _node_name(node, code, place.scope)
            if found is not None:
                yield _node(module, node.lineno, found)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for decorator in node.decorator_list:
                said = code.resolve(decorator, place.scope)
                if said is not None and _FUNCTIONAL.match(said):
                    yield _node(
                        module, node.lineno, _said_name(decorator, code, place) or node.name
                    )


def _said_name(decorator: ast.expr, code: Code, place: Place) -> str | None:
    words = decorator.keywords if isinstance(decorator, ast.Call) else []
    return next((code.text(w.value, place.scope) for w in words if w.arg == "name"), None)


def _node_name(call: ast.Call, code: Code, scope: Scope) -> str | None:
    if not (isinstance(call.func, ast.Attribute) and call.func.attr == "add_node"):
        return None
    words = [word.value for word in call.keywords if word.arg == "node"]
    if not (call.args or words):
        return None
    owner = code.resolve(call.func.value, scope)
    if owner is None:
        imports = scope.module.scope.imports.values()
        if not any(one.startswith("langgraph") for one in imports):
            return None
    elif not _GRAPH.match(owner):
        return None
    first = (call.args or words)[0]
    text = code.text(first, scope)
    if text is not None:
        return text
    if isinstance(first, ast.Name | ast.Attribute):
        return first.id if isinstance(first, ast.Name) else first.attr
    return "?"


def _node(module: Module, line: int, name: str) -> Finding:
    return Finding(
        file=module.file,
        line=line,
        kind=Kind.NODE,
        name=name,
        verdict=Verdict.ZERO_CODE,
        why="langgraph_node and langgraph_outcome, by the callback of LangGraph",
        seen_as=() if name == "?" else (name,),
    )
