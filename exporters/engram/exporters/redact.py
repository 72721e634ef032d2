"""Secrets out of telemetry, before anything becomes queryable.

The settings are a subset of the Collector's redaction processor, with defaults that work by
themselves: attributes whose key names a secret lose their value, and texts lose the secrets in
them.
JSON inside a text stays JSON, and redacting twice changes nothing.

Clean text must cost next to nothing, and one big alternation costs 24 us per kB in `re`.
So substring searches decide first whether any pattern can match at all (about 4 us per kB).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

import polars as pl

REDACTED: Final = "[redacted]"


@dataclass(frozen=True, slots=True, kw_only=True)
class RedactionConfig:
    """Settings of the `redaction` processor."""

    allow_all_keys: bool = True
    """Keys that no list names are kept. Must be true: Engram drops no attribute."""

    blocked_key_patterns: tuple[str, ...] = ()
    """More keys whose value is replaced, as regular expressions (case ignored)."""

    blocked_values: tuple[str, ...] = ()
    """More secrets inside values, as regular expressions; the matching part is replaced."""

    allowed_values: tuple[str, ...] = ()
    """Values that stay as they are when one of these matches the whole value."""

    ignored_keys: tuple[str, ...] = ()
    """Keys whose value is never replaced because of its key."""

    summary: Literal["debug", "info", "silent"] = "silent"
    """Accepted for the Collector's sake."""

    def problems(self) -> Iterator[str]:
        """What is wrong with these settings."""
        if not self.allow_all_keys:
            yield "allow_all_keys must be true: Engram keeps every attribute and redacts values"
        if self.summary not in ("debug", "info", "silent"):
            yield f"summary must be one of debug, info, silent, not {self.summary!r}"
        for name in ("blocked_key_patterns", "blocked_values", "allowed_values"):
            for i, pattern in enumerate(getattr(self, name)):
                try:
                    re.compile(pattern)
                except re.error as error:
                    yield f"{name}[{i}]: not a pattern: {error}"


# --- keys --------------------------------------------------------------------------------------

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_SECRET_ENDINGS = (
    "password", "passwords", "passwd", "passphrase", "pwd", "secret", "secrets", "apikey",
    "credential", "credentials", "authorization", "cookie", "cookies", "accesskey", "privatekey",
    "secretkey", "sessionid", "phpsessid", "jsessionid", "htpasswd",
)  # fmt: skip
_KEY_OF = ("api", "private", "access", "secret", "signing", "encryption", "ssh", "auth", "master",
           "subscription", "service", "account")  # fmt: skip
_TOKEN_COUNT = ("max", "min", "total", "num", "n", "prompt", "completion", "input", "output",
                "cached", "per", "time", "reasoning", "of", "next", "eos", "bos", "pad", "stop",
                "first", "last")  # fmt: skip
_TOKEN_BEARER = ("access", "refresh", "auth", "id", "session", "bearer", "api", "security")
_ABOUT = (
    "type", "types", "count", "counts", "usage", "limit", "limits", "length", "len", "size", "name",
    "names", "id", "ids", "budget", "expires", "expiry", "expiration", "ttl", "policy", "url",
    "uri",
    "endpoint", "version", "provider", "kind", "status", "valid", "required", "present", "enabled",
    "rate", "age", "changed", "reset", "strength", "field", "index", "s", "ms", "seconds", "bucket",
    "cost", "price", "error", "errors", "arn", "path", "at", "model", "scope", "scopes", "in",
)  # fmt: skip
"""Words behind a secret's name that say it is about the secret: `token.type`, `k8s.secret.name`."""
_QUERY_ONLY = frozenset(
    ("key", "sig", "signature", "auth", "pass", "pw", "sid", "jwt", "assertion")
)


def _is_secret(key: str) -> bool:
    words = [w.lower() for w in _WORD.findall(key)]
    if not words:
        return False
    if words[-1] in _ABOUT and len(words) > 1:
        return words[-2:] == ["connect", "sid"]
    for i, word in enumerate(words):
        before = words[i - 1] if i else ""
        if word.endswith(_SECRET_ENDINGS):
            return True
        if word.endswith("token") and before not in _TOKEN_COUNT:
            return i == len(words) - 1 or words[i + 1] not in _ABOUT
        if word == "tokens" and before in _TOKEN_BEARER:
            return True
        if word in ("key", "keys") and before in _KEY_OF:
            return i == len(words) - 1 or words[i + 1] not in _ABOUT
        if word == "sid" and before == "connect":
            return True
        if word == "signature" and before == "amz":
            return True
    return words in (["auth"], ["pass"])


# --- texts -------------------------------------------------------------------------------------

# Behind a letter there is no secret (`task-force` holds `sk-`); the `n` of JSON's `\n` is none.
_LEAD = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrtbf]))"

_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?:[A-Za-z0-9+/=\s:,.]|-(?!----)|\\+[nrt/])*"
    r"(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----)?"
)
_AWS = re.compile(r"(?:AKIA|ASIA)[0-9A-Z]{16,}")
_SK = re.compile(rf"{_LEAD}sk-(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{{20,}}")
_UNDERSCORED = re.compile(
    r"gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{22,}|(?:sk|rk|pk)_live_[A-Za-z0-9]{10,}"
    r"|(?:sk|rk)_test_[A-Za-z0-9]{10,}|whsec_[A-Za-z0-9+/=]{16,}"
    r"|hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{36}|engram_[A-Za-z0-9_-]{43}"
)
_SLACK = re.compile(r"xox[abeoprs]-[A-Za-z0-9-]{10,}")
_GOOGLE = re.compile(r"AIza[0-9A-Za-z_-]{35}")
_JWT = re.compile(r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?")
_SCHEME = re.compile(
    rf"{_LEAD}((?:bearer|basic)(?:\s|%20|\+|\\[nt])+)([A-Za-z0-9._~+/=-]{{8,}})", re.I
)
_USERINFO = re.compile(r"(://[^\s/?#@\"'\\:<>]*):([^\s/\"'\\<>]+)@")
_TOKEN_USER = re.compile(r"(://)[^\s/?#@\"'\\:<>]{20,}(?=@)")
_CARD = re.compile(rf"{_LEAD}(?:[0-9][ -]?){{12,18}}[0-9](?![0-9A-Za-z])")
# Possessive, and only at the start of a word: without both, prose costs 120 µs a kilobyte, not 8.
_DIGITS = re.compile(r"[0-9][0-9 -]{11,}[0-9]")
_PAIR = re.compile(r"(?<![A-Za-z0-9_.\-])([A-Za-z0-9_.\-]{3,80}+)(\\*+[\"'])?+(\s*+(?::|=>|=)\s*+)")
_NAME_END = re.compile(r"[A-Za-z0-9_.\-]{0,80}+\\*+[\"']?+\s*+[:=]")
_HEADER_SCHEME = re.compile(
    r"(?:bearer|basic|token|negotiate|apikey)\s+|(?:digest|aws4-hmac-sha256|hawk)\s[^\"'\\\r\n]*",
    re.I,
)
_COOKIES = re.compile(r"[^\s;=\"'\\]+=[^\s;\"'\\]*(?:;\s*[^\s;=\"'\\]+(?:=[^\s;\"'\\]*)?)*;?")
_BARE = re.compile(r"[^\s\"'&,;<>(){}\[\]\\]+")
_NO_SECRET = frozenset(("null", "true", "false", "none", "undefined", "nan"))

_KEPT = b"bcdkprtwyz"
_FOLD: Final = bytes.maketrans(_KEPT.upper(), _KEPT)
_DROPPED: Final = bytes(b for b in range(256) if b not in _KEPT + _KEPT.upper())
_SKELETONS: Final = (
    (b"pw", ("passw", "pwd")), (b"ppr", ("passp",)), (b"crt", ("secret",)), (b"tk", ("token",)),
    (b"crdt", ("credential",)), (b"trz", ("authoriz",)), (b"ck", ("cookie",)), (b"ky", ("key",)),
)  # fmt: skip
"""What is left of a telling word when only `_KEPT` is left of the text
(a third, for 0.9 us per kB): searching that costs a quarter of searching the text."""
_QUERY_HINTS = ("sig=", "auth=", "pass=", "pw=", "sid=", "jwt=", "assertion=", "signature=", "essi")
_ONES: Final = bytes(0x30 if 0x30 <= b <= 0x39 else 0x2E for b in range(256))
_NOT_DIGITS: Final = bytes(b for b in range(256) if not 0x30 <= b <= 0x39)


_SUSPICIOUS: Final = (
    r"-----BEGIN|sk-[A-Za-z0-9_-]{20}|xox[abeoprs]-|A[KS]IA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{30}"
    r"|github_pat_|[srp]k_(?:live|test)_|whsec_|glpat-|hf_[A-Za-z0-9]{30}|npm_[A-Za-z0-9]{36}|AIza"
    r"|engram_[A-Za-z0-9_-]{43}"
    r"|eyJ[A-Za-z0-9_-]{8}|://[^\s\x22'<>]*@|[0-9](?:[ -]?[0-9]){12}"
    r"|(?i-u:bearer|basic)(?:\s|%20|\+|\\[nt])"
    r"|(?i-u:passw|pwd|passp|secret|token|credential|authoriz|cookie|key)"
    r"[A-Za-z0-9_.\-]{0,80}\\*[\x22']?\s*[:=]"
    r"|(?i-u:sig|auth|pass|pw|sid|jwt|assertion|signature)=|(?i-u:essi)[^=]*="
    r"|=(?s:.)*(?i-u:essi)"
)
"""All that `Redactor.text` looks for, loosely, for Rust's regex (which has no look-around)."""


def _credential(match: re.Match[str]) -> str:
    """A bearer or basic credential, told apart from "basic understanding"."""
    value = match[2]
    odd = any(c.isdigit() for c in value) or "=" in value or len(value) >= 32
    mixed = re.search(r"[a-z][A-Z]|[A-Z]{2}[a-z]", value)
    return match[1] + REDACTED if odd or mixed else match[0]


def _luhn(digits: str) -> bool:
    total = 0
    for i, digit in enumerate(reversed(digits)):
        n = int(digit) * (1 + i % 2)
        total += n - 9 if n > 9 else n
    return total % 10 == 0


def _json_quote(text: str, start: int, end: int) -> str:
    """The quote that a replaced JSON number needs, at its depth of escaping; empty in prose."""
    before, after = text[:start].rstrip()[-1:], text[end:].lstrip()[:1]
    if before not in (":", "[", ",") or after not in (",", "}", "]"):
        return ""
    quote = text.rfind('"', 0, start)
    if quote < 0:
        return ""
    first = quote
    while first and text[first - 1] == "\\":
        first -= 1
    return text[first : quote + 1]


def _cards(text: str) -> str:
    def replace(match: re.Match[str]) -> str:
        digits = match[0].replace(" ", "").replace("-", "")
        if not (digits[0] in "3456" or "22" <= digits[:2] <= "27") or len(set(digits)) == 1:
            return match[0]
        if not _luhn(digits):
            return match[0]
        quote = _json_quote(text, match.start(), match.end()) if digits == match[0] else ""
        return f"{quote}{REDACTED}{quote}"

    # `_CARD` looks behind at every position of a text (65 µs a kB), so it is given only the digits.
    out: list[str] = []
    done = 0
    for digits in _DIGITS.finditer(text):
        for match in _CARD.finditer(text, digits.start(), digits.end() + 1):
            out += (text[done : match.start()], replace(match))
            done = match.end()
    return "".join(out) + text[done:] if done else text


def _quoted_end(text: str, at: int, depth: int, quote: str) -> int:
    """Where the string that opened before `at` ends: its quote, or one of a string around it."""
    while True:
        at = text.find(quote, at)
        if at < 0:
            return len(text)
        first = at
        while first and text[first - 1] == "\\":
            first -= 1
        # In a string at escape depth d a closing quote has 2^d - 1 backslashes, an inner one more.
        if at - first <= depth:
            return first
        if (at - first) % (2 * (depth + 1)) == depth:  # `\\` pairs of the text, then the quote
            return at - depth
        at += 1


class Redactor:
    """Replaces secrets. Safe to use from several threads."""

    def __init__(self, config: RedactionConfig | None = None) -> None:
        config = config or RedactionConfig()
        self._ignored = frozenset(config.ignored_keys)
        self._keys = [re.compile(p, re.I) for p in config.blocked_key_patterns]
        self._values = [re.compile(p) for p in config.blocked_values]
        self._allowed = [re.compile(p) for p in config.allowed_values]
        self.key = lru_cache(maxsize=8192)(self._key)
        """Whether the value of this key must be replaced wholly."""

    def _key(self, key: str) -> bool:
        if key in self._ignored:
            return False
        return _is_secret(key) or any(p.search(key) for p in self._keys)

    def suspicious(self, texts: pl.Series) -> Iterable[int]:
        """Which of many texts `text` has to read: all that it would change, and few others.

        One pass of a linear-time engine over all of them: 2 µs a kilobyte.
        """
        if self._values or self._keys:
            return range(len(texts))
        found: list[int] = texts.str.contains(_SUSPICIOUS).arg_true().to_list()
        return found

    def text(self, value: str) -> str:
        """The text with its secrets replaced by `[redacted]`."""
        out = value
        # Each search for a rare single character (20 ns) spares one for a word (500 ns).
        if "-" in out:
            if "-----BEGIN" in out:
                out = _PRIVATE_KEY.sub(REDACTED, out)
            if "sk-" in out:
                out = _SK.sub(REDACTED, out)
            if "x" in out and "xox" in out:
                out = _SLACK.sub(REDACTED, out)
        if "_" in out:
            out = _UNDERSCORED.sub(REDACTED, out) if _has_underscored(out) else out
        if "J" in out and "eyJ" in out:
            out = _JWT.sub(REDACTED, out)
        if "I" in out and ("AKIA" in out or "ASIA" in out):
            out = _AWS.sub(REDACTED, out)
        if "z" in out and "AIza" in out:
            out = _GOOGLE.sub(REDACTED, out)
        if "@" in out and "://" in out:
            out = _TOKEN_USER.sub(rf"\1{REDACTED}", _USERINFO.sub(rf"\1:{REDACTED}@", out))
        raw = out.encode("utf-8", "surrogatepass")
        bones = raw.translate(_FOLD, _DROPPED)
        equals = "=" in out
        if (equals or ":" in out) and (self._keys or self._telling(out, bones, equals)):
            out = self._pairs(out)
        if (b"brr" in bones or b"bc" in bones) and _says(out, ("bearer", "basic")):
            out = _SCHEME.sub(_credential, out)
        if (
            len(raw) >= 13
            and len(raw.translate(None, _NOT_DIGITS)) >= 13
            and b"0000000000000" in raw.translate(_ONES, b" -")
        ):
            out = _cards(out)
        for pattern in self._values:
            out = pattern.sub(_whole, out)
        if out is not value and self._allowed and any(p.fullmatch(value) for p in self._allowed):
            return value
        return out

    def _telling(self, text: str, bones: bytes, equals: bool) -> bool:
        """Whether a word in the text may name a secret."""
        words = [word for skeleton, full in _SKELETONS if skeleton in bones for word in full]
        return (bool(words) and _names(text, words)) or (equals and _says(text, _QUERY_HINTS))

    def _pairs(self, text: str) -> str:
        """`key: value` and `key=value`, in prose, headers, URLs, JSON and JSON inside JSON."""
        out: list[str] = []
        done = 0
        for match in _PAIR.finditer(text):
            if match.start() < done:
                continue
            key = match[1]
            if not self.key(key):
                query = text[match.start() - 1 : match.start()] in ("?", "&") and match[3] == "="
                if not (query and key.lower() in _QUERY_ONLY):
                    continue
            start = match.end()
            end, replacement = self._value(text, start, key, match[2])
            if end > start:
                out += (text[done:start], replacement)
                done = end
        if not done:
            return text
        out.append(text[done:])
        return "".join(out)

    def _value(self, text: str, start: int, key: str, key_quote: str | None) -> tuple[int, str]:
        at = start
        while text[at : at + 1] == "\\":
            at += 1
        quote = text[at : at + 1]
        if quote in ('"', "'") and quote:
            end = _quoted_end(text, at + 1, at - start, quote)
            opening = text[start : at + 1]
            return (end, opening + REDACTED) if end > at + 1 else (start, "")
        if text.startswith(REDACTED, start):
            return start, ""
        name = key.lower()
        if name.endswith("authorization") and (scheme := _HEADER_SCHEME.match(text, start)):
            bare = _BARE.match(text, scheme.end())
            return (bare.end() if bare else scheme.end()), REDACTED
        if "cookie" in name and (cookies := _COOKIES.match(text, start)):
            return cookies.end(), REDACTED
        found = _BARE.match(text, start)
        if found is None or found[0].lower() in _NO_SECRET:
            return start, ""
        return found.end(), f"{key_quote}{REDACTED}{key_quote}" if key_quote else REDACTED


def _says(text: str, words: Iterable[str]) -> bool:
    lower = text.lower()
    return any(word in lower for word in words)


def _names(text: str, words: Iterable[str]) -> bool:
    """Whether one of the words is in a name with a value: `tokens:` is, "a token of" is not."""
    lower = text.lower()
    for word in words:
        at = lower.find(word)
        while at >= 0:
            if _NAME_END.match(lower, at + len(word)):
                return True
            at = lower.find(word, at + len(word))
    return False


def _has_underscored(text: str) -> bool:
    return any(
        mark in text
        for mark in ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "_live_", "_test_",
                     "whsec_", "hf_", "npm_", "engram_")
    )  # fmt: skip


def _whole(match: re.Match[str]) -> str:
    return REDACTED if match[0] else ""
