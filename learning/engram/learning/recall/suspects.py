"""Which memories talk to their reader instead of telling something, and which solutions to believe.

No list of phrases finds every attack, so nothing is let through because of this one: all recalled
text is fenced. But what matches is never offered as a solution or as what was decided.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

from engram.learning.recall.items import Item
from engram.learning.recall.ranking import tried_and_worked
from engram.learning.recall.revisions import UNTRUSTED
from engram.learning.recall.visible import BREAKS, visible

SOLUTIONS: Final = ("error_solution", "error_resolution", "optimization")
DECISIONS: Final = ("business_decision",)

_BEFORE: Final = (
    r"(?:all |any |the |your |every |these |those |my |of |and )*"
    r"(?:previous|prior|above|earlier|preceding|former|other|existing|initial|original|safety|"
    r"system|past|foregoing)"
)
_ORDERS: Final = (
    r"instructions?|prompts?|rules?|directions?|guidelines?|polic(?:y|ies)|constraints?|guardrails?"
)
_TALK: Final = re.compile(
    rf"\b(?:ignore|disregard|forget|override|bypass|skip|drop|neglect|overrule)\b[^.]{{0,30}}?"
    rf"(?:\b{_BEFORE}\s+(?:{_ORDERS})|\b(?:instructions|prompt|guardrails|guidelines))\b"
    r"|\b(?:ignore|disregard|forget) (?:everything|all|what(?:ever)?) (?:above|before|you|that|was)"
    r"|\bignorier\w*\b.{0,40}\b(?:anweisung|regel|vorgabe)"
    r"|\bignor(?:a|e|ez|ar|is)\b.{0,40}\b(?:instruc|istruzion|consigne|regole|reglas|instrucao)"
    r"|\boublie[zs]?\b.{0,40}\b(?:instruction|consigne)"
    r"|忽略.{0,12}(?:指令|指示|提示|规则)|無視.{0,12}(?:指示|命令)|(?:指示|命令).{0,6}無視"
    r"|игнорируй.{0,40}(?:инструкц|указан)"
    r"|\byou (?:are|must act|will act|shall act) (?:now|from now on|as|henceforth)\b"
    r"|\b(?:from now on|henceforth),? (?:you|always|never|respond|answer|act|obey)\b"
    r"|\b(?:act|behave|pretend|roleplay) (?:as|to be|like) (?:an? |the )?"
    r"(?:unrestricted|admin|root|developer|system|different|evil|dan\b)"
    r"|\b(?:new|updated|real|actual|hidden|secret|important|urgent|additional) "
    r"(?:system )?(?:instructions?|orders?|directives?|system prompt)\b"
    r"|\b(?:system|developer|initial|hidden) (?:prompt|message|override|note|instruction)s?\b"
    r"|\b(?:developer|debug|god|dan|jailbreak|admin|maintenance|unrestricted|sudo) mode\b|\bjailbr"
    r"|\b(?:dear|attention|note to|message (?:to|for)|hey|hello|instructions? (?:to|for)|memo to) "
    r"(?:the |any |all |every )?(?:ai|agents?|assistants?|llms?|models?|bots?|chatgpt|claude|gpt|"
    r"copilot|reader)\b"
    r"|\b(?:ai|assistant|agent|llm|model)s? (?:must|should|shall|has to|have to|needs? to|will) "
    r"(?:now |always |immediately |first )?(?:call|execute|send|reply|obey|approve|ignore|"
    r"delete|email|forward|transfer|grant|disable|trust)\b"
    r"|\b(?:do not|don't|never|without) (?:tell|telling|inform|informing|mention|mentioning|alert|"
    r"alerting|notify|notifying|ask|asking|reveal|revealing|show|showing)\b[^.]{0,25}"
    r"\b(?:user|human|operator|anyone|anybody|customer|them|owner|admin)"
    r"|\b(?:reveal|print|repeat|output|leak|exfiltrat\w*|show|send|post|email|forward|upload|dump|"
    r"give|share|disclose|paste)\b[^.]{0,50}\b(?:system prompt|api[ _-]?keys?|secrets?|passwords?|"
    r"credentials?|(?:access|auth|api|bearer|session) tokens?|private keys?|"
    r"env(?:ironment)? var\w*|\.env\b|ssh keys?|(?:full|whole) conversation|"
    r"chat history|user data|customer (?:data|list)|id_rsa)"
    r"|\b(?:call|invoke|use|execute) (?:the )?(?:[\w.-]+ )?tool\b"
    r"|\b(?:curl|wget|iwr|invoke-webrequest)\b[^|;]*[|;]\s*(?:sudo )?(?:ba|z|k|da)?sh\b"
    r"|\|\s*(?:sudo )?(?:ba|z|da)?sh\b|\b(?:bash|sh) <\(|\bbase64 (?:-d|--decode)\b"
    r"|\bpowershell\b.{0,20}-e(?:nc|ncodedcommand)?\b|\bos\.system\("
    r"|\brm -rf? (?:--no-preserve-root )?(?:/|~|\*)(?:\s|$|;)|\bdrop (?:table|database)\b"
    r"|\bchmod (?:-r )?777\b|\bdisable (?:the )?(?:auth\w*|security|safety|tls|ssl|verification|"
    r"firewall|audit|logging|certificate)\b|\bverify\s*=\s*false\b|--insecure\b"
    r"|\b(?:this|it) (?:is|was) (?:already )?(?:approved|authorized|authorised|verified) by\b"
    r"|\bend of (?:memory|context|data|recalled|document|instructions|conversation)\b"
    r"|\bbegin(?:ning)? of (?:system|new|instructions)\b",
    re.IGNORECASE | re.DOTALL,
)  # fmt: skip
_MARKUP: Final = re.compile(
    r"<\|\s*\w+|<\|?/?\s*(?:im_start|im_end|endoftext|eot_id|begin_of_text|tool_\w+|function_\w+|"
    r"invoke|antml\b|script|iframe|img|svg|object|embed|form|style|meta|thinking)\b"
    r"|</\s*(?:system|assistant|user|human|developer|tool|function|instructions?|memory|memories|"
    r"context|recalled|data|important|s|prompt|result|output|document)\s*>"
    r"|<\s*(?:system|assistant|developer|instructions?|important|human)\s*>"
    r"|<<\s*/?sys|\[/?inst\]|\[/?system\]|\[tool_calls?\]|<!--|<!\[cdata"
    r"|engram:recalled|<<<"
    r"|[\"'](?:tool_calls?|function_call|tool_use|tool_result|recipient_name)[\"']\s*:"
    r"|[\"']name[\"']\s*:\s*[\"'][\w.-]+[\"']\s*,\s*[\"'](?:arguments|parameters|input)[\"']\s*:"
    r"|[\"']role[\"']\s*:\s*[\"'](?:system|assistant|user|developer|tool)[\"']"
    r"|(?:^|\n)[\s#*>]*(?:system|assistant|human|developer)[\s*]*:\s*\S+(?:\s+\S+){3}"
    r"|(?:^|\n)\s*(?:action input|final answer|thought|observation)\s*:"
    r"|!\[[^\]]*\]\(|\]\(\s*(?:javascript|data):|\bjavascript:|\bon(?:error|load|click)\s*=",
    re.IGNORECASE,
)
_INVISIBLE: Final = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f\x80-\x84\x86-\x9f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064"
    "\u2066-\u206f\ufeff\U000e0000-\U000e0fff\u034f\u115f\u1160\u3164\uffa0]"
)
_SPACED: Final = re.compile(r"\b(?:\w[\s._*-]{1,2}){5,}\w\b")
_LEET: Final = tuple(str.maketrans(f"0{one}34578@$", f"o{of}eastbas") for one, of in ("1i", "1l"))


def suspicious(one: Item) -> bool:
    """Whether a memory's text talks to its reader, poses as somebody else, or hides something."""
    return _suspicious(f"{one.title}\n{one.content}")


@lru_cache(maxsize=4_096)
def _suspicious(text: str) -> bool:
    if _INVISIBLE.search(text):
        return True
    plain = unicodedata.normalize("NFKC", BREAKS.sub("\n", visible(text)))
    if _MARKUP.search(plain):
        return True
    flat = " ".join(plain.split())
    spelled = _SPACED.sub(lambda found: re.sub(r"[\s._*-]", "", found[0]), flat)
    ways = {flat, spelled, *(spelled.translate(leet) for leet in _LEET)}
    return any(_TALK.search(some) for some in ways)


def believed(one: Item) -> bool:
    """Whether it may be told as a known solution or optimization.

    Somebody must have said that it is one: text of logs, spans and pages is none, whatever it
    claims. What an agent says must have worked once. And it must not have failed whenever tried.
    """
    if one.memory_type not in SOLUTIONS or one.source != "mark" or one.hidden:
        return False
    if (one.trust or "unknown") in UNTRUSTED or one.superseded_by is not None or suspicious(one):
        return False
    tried, worked = tried_and_worked(one.meta_data, one.outcome)
    if tried and not worked:
        return False
    return bool(worked) or (one.trust != "agent" and one.memory_type != "error_resolution")


__all__ = ["DECISIONS", "SOLUTIONS", "believed", "suspicious"]
