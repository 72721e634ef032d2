"""Phrases and marks by which a text talks to a model that reads it.

Each pattern is tried only on texts that have one of its words: all patterns on each text would cost
a millisecond.
"""

from __future__ import annotations

import re
from typing import Final

_BEFORE: Final = (
    r"(?:all |any |the |your |every |these |those |my |of |and )*"
    r"(?:previous|prior|above|earlier|preceding|former|other|existing|initial|original|safety|"
    r"system|past|foregoing)"
)
_ORDERS: Final = (
    r"instructions?|prompts?|rules?|directions?|guidelines?|polic(?:y|ies)|constraints?|guardrails?"
)
_SECRETS: Final = (
    r"system prompt|api[ _-]?keys?|secrets?|passwords?|credentials?|"
    r"(?:access|auth|api|bearer|session) tokens?|private keys?|env(?:ironment)? var\w*|\.env\b|"
    r"ssh keys?|(?:full|whole) conversation|chat history|user data|customer (?:data|list)|id_rsa"
)

Pattern = tuple[tuple[str, ...], re.Pattern[str]]
"""Words of which a text must have one, and what it is then searched for; in lower case."""


def _rule(words: str, *patterns: str) -> Pattern:
    return tuple(words.split("; ")), re.compile("|".join(patterns), re.DOTALL | re.MULTILINE)


TALK: Final[tuple[Pattern, ...]] = (
    _rule(
        "ignor; disregard; forget; overrid; bypass; skip; drop; neglect; overrul",
        rf"\b(?:ignore|disregard|forget|override|bypass|skip|drop|neglect|overrule)\b[^.]{{0,30}}?"
        rf"(?:\b{_BEFORE}\s+(?:{_ORDERS})|\b(?:instructions|prompt|guardrails|guidelines))\b",
        r"\b(?:ignore|disregard|forget) (?:everything|all|what(?:ever)?) "
        r"(?:above|before|you|that|was)",
    ),
    _rule(
        "ignor; oublie; 忽略; 無視; игнорируй",
        r"\bignorier\w*\b.{0,40}\b(?:anweisung|regel|vorgabe)",
        r"\bignor(?:a|e|ez|ar|is)\b.{0,40}\b(?:instruc|istruzion|consigne|regole|reglas|instrucao)",
        r"\boublie[zs]?\b.{0,40}\b(?:instruction|consigne)",
        r"忽略.{0,12}(?:指令|指示|提示|规则)|無視.{0,12}(?:指示|命令)|(?:指示|命令).{0,6}無視",
        r"игнорируй.{0,40}(?:инструкц|указан)",
    ),
    _rule(
        "you are; you must; you will; you shall; from now on; henceforth",
        r"\byou (?:are|must act|will act|shall act) (?:now|from now on|as|henceforth)\b",
        r"\b(?:from now on|henceforth),? (?:you|always|never|respond|answer|act|obey)\b",
    ),
    _rule(
        "act as; act like; behave; pretend; roleplay",
        r"\b(?:act|behave|pretend|roleplay) (?:as|to be|like) (?:an? |the )?"
        r"(?:unrestricted|admin|root|developer|system|different|evil|dan\b)",
    ),
    _rule(
        "instruction; order; directive; prompt; message; override; note",
        r"\b(?:new|updated|real|actual|hidden|secret|important|urgent|additional) "
        r"(?:system )?(?:instructions?|orders?|directives?|system prompt)\b",
        r"\b(?:system|developer|initial|hidden) (?:prompt|message|override|note|instruction)s?\b",
        r"\b(?:dear|attention|note to|message (?:to|for)|instructions? (?:to|for)|memo to) "
        r"(?:the |any |all |every )?(?:ai|agents?|assistants?|llms?|models?|bots?|gpt|reader)\b",
    ),
    _rule(
        " mode; jailbr",
        r"\b(?:developer|debug|god|dan|jailbreak|admin|maintenance|unrestricted|sudo) mode\b",
        r"\bjailbr",
    ),
    _rule(
        "dear; attention; hey; hello; memo to",
        r"\b(?:dear|attention|hey|hello|memo to),? (?:the |any |all |every )?(?:ai|agents?|"
        r"assistants?|llms?|models?|bots?|chatgpt|claude|gpt|copilot|reader)\b",
    ),
    _rule(
        "assistant; agent; llm; model; ai ",
        r"\b(?:ai|assistant|agent|llm|model)s? (?:must|should|shall|has to|have to|needs? to|will) "
        r"(?:now |always |immediately |first )?(?:call|execute|send|reply|obey|approve|ignore|"
        r"delete|email|forward|transfer|grant|disable|trust)\b",
    ),
    _rule(
        "do not; don't; never; without",
        r"\b(?:do not|don't|never|without) (?:tell|telling|inform|informing|mention|mentioning|"
        r"alert|alerting|notify|notifying|ask|asking|reveal|revealing|show|showing)\b[^.]{0,25}"
        r"\b(?:user|human|operator|anyone|anybody|customer|them|owner|admin)",
    ),
    _rule(
        "prompt; key; secret; password; credential; token; env; conversation; chat history; "
        "user data; customer; id_rsa",
        r"\b(?:reveal|print|repeat|output|leak|exfiltrat\w*|show|send|post|email|forward|upload|"
        rf"dump|give|share|disclose|paste)\b[^.]{{0,50}}\b(?:{_SECRETS})",
    ),
    _rule(" tool", r"\b(?:call|invoke|use|execute) (?:the )?(?:[\w.-]+ )?tool\b"),
    _rule(
        "curl; wget; iwr; invoke-webrequest; sh; base64; powershell; os.system",
        r"\b(?:curl|wget|iwr|invoke-webrequest)\b[^|;]{0,300}[|;]\s*(?:sudo )?(?:ba|z|k|da)?sh\b",
        r"\|\s*(?:sudo )?(?:ba|z|da)?sh\b|\b(?:bash|sh) <\(|\bbase64 (?:-d|--decode)\b",
        r"\bpowershell\b.{0,20}-e(?:nc|ncodedcommand)?\b|\bos\.system\(",
    ),
    _rule(
        "rm -; drop ; chmod; disable; verify; --insecure",
        r"\brm -rf? (?:--no-preserve-root )?(?:/|~|\*)(?:\s|$|;)|\bdrop (?:table|database)\b",
        r"\bchmod (?:-r )?777\b|\bverify\s*=\s*false\b|--insecure\b",
        r"\bdisable (?:the )?(?:auth\w*|security|safety|tls|ssl|verification|firewall|audit|"
        r"logging|certificate)\b",
    ),
    _rule(
        "approved; authori; verified; end of; begin",
        r"\b(?:this|it) (?:is|was) (?:already )?(?:approved|authori[sz]ed|verified) by\b",
        r"\bend of (?:memory|context|data|recalled|document|instructions|conversation)\b",
        r"\bbegin(?:ning)? of (?:system|new|instructions)\b",
    ),
)
"""What is said to whoever reads it. On one line."""

MARKUP: Final[tuple[Pattern, ...]] = (
    _rule(
        "<",
        r"<\|\s*\w+|<\|?/?\s*(?:im_start|im_end|endoftext|eot_id|begin_of_text|tool_\w+|"
        r"function_\w+|invoke|antml\b|script|iframe|img|svg|object|embed|form|style|meta|"
        r"thinking)\b",
        r"</\s*(?:system|assistant|user|human|developer|tool|function|instructions?|memory|"
        r"memories|context|recalled|data|important|s|prompt|result|output|document)\s*>",
        r"<\s*(?:system|assistant|developer|instructions?|important|human)\s*>",
        r"<<\s*/?sys|<!--|<!\[cdata|<<<",
    ),
    _rule("engram", r"engram:recalled"),
    _rule(
        "[; ](",
        r"\[/?inst\]|\[/?system\]|\[tool_calls?\]|!\[[^\]]*\]\(|\]\(\s*(?:javascript|data):",
    ),
    _rule("javascript:; on", r"\bjavascript:|\bon(?:error|load|click)\s*="),
    _rule(
        "tool_; function_call; recipient_name; name; role",
        r"[\"'](?:tool_calls?|function_call|tool_use|tool_result|recipient_name)[\"']\s*:",
        r"[\"']name[\"']\s*:\s*[\"'][\w.-]+[\"']\s*,\s*[\"'](?:arguments|parameters|input)[\"']\s*:",
        r"[\"']role[\"']\s*:\s*[\"'](?:system|assistant|user|developer|tool)[\"']",
    ),
    _rule(
        "system; assistant; human; developer",
        r"^[\s#*>]*(?:system|assistant|human|developer)[\s*]*:\s*\S+(?:\s+\S+){3}",
    ),
    _rule(
        "action input; final answer; thought; observation",
        r"^\s*(?:action input|final answer|thought|observation)\s*:",
    ),
)
"""What poses as another's turn, a call or a page. With its lines."""


def found(patterns: tuple[Pattern, ...], text: str) -> bool:
    """Whether one of some patterns is in a text of lower case."""
    return any(
        pattern.search(text) is not None
        for words, pattern in patterns
        if any(word in text for word in words)
    )


__all__ = ["MARKUP", "TALK", "found"]
