"""Redaction: what is taken out, what stays, and that JSON stays JSON."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.exporters.redact import REDACTED, RedactionConfig, Redactor

REDACTOR = Redactor()

SECRET_KEYS = (
    "password",
    "db.password",
    "userPassword",
    "DB_PASSWD",
    "client_secret",
    "aws_secret_access_key",
    "x-api-key",
    "apiKey",
    "http.request.header.authorization",
    "http.request.header.cookie",
    "Set-Cookie",
    "access_token",
    "refreshToken",
    "auth_token",
    "token",
    "csrf-token",
    "private_key",
    "ssh_key",
    "credentials",
    "passphrase",
    "JSESSIONID",
    "connect.sid",
    "X-Amz-Signature",
    "tokenValue",
    "auth",
)
PLAIN_KEYS = (
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "gen_ai.request.max_tokens",
    "llm.token_count.prompt",
    "llm.token_count",
    "gen_ai.token.type",
    "tokenizer",
    "total_token_usage",
    "time_per_output_token",
    "session.id",
    "user.id",
    "http.route",
    "primary_key",
    "cache_key",
    "public_key",
    "k8s.secret.name",
    "password_changed_at",
    "author",
    "gen_ai.conversation.id",
    "secretary",
    "passenger",
    "keyboard",
    "",
)

SK = "sk-ant-api03-abcdefghijklmnop1234"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7\nbq3+/x==\n-----END RSA PRIVATE KEY-----"

# text, the secret that must be gone, what must remain
SECRETS = (
    ("key AKIAIOSFODNN7EXAMPLE used", "AKIAIOSFODNN7EXAMPLE", "key "),
    ("idAKIAIOSFODNN7EXAMPLE_x", "AKIAIOSFODNN7EXAMPLE", "_x"),
    (f"use {SK}, please", SK, ", please"),
    ("sk-proj-Abcdefghijklmnopqrstuvwx12", "sk-proj-Abcdefghijklmnopqrstuvwx12", ""),
    ("push with ghp_" + "a1B2" * 9, "a1B2a1B2", "push with"),
    ("github_pat_" + "A1_b" * 10, "A1_bA1_b", ""),
    ("xoxb-1234567890-abcdefghij in slack", "1234567890-abcdefghij", "in slack"),
    ("maps AIzaSyA1234567890abcdefghijklmnopqrstuv", "SyA1234567890abcdefghijklmnopqrstuv", "maps"),
    ("pay sk_live_4eC39HqLyjWDarjtT1zdp7dc", "4eC39HqLyjWDarjtT1zdp7dc", "pay"),
    (f"jwt {JWT}.", "eyJzdWIiOiIxMjM0In0", "jwt"),
    (PEM + "\nafter", "MIIEpAIBAAKCAQEA7", "after"),
    ("curl -H 'Authorization: Bearer abc.def-ghi_123'", "abc.def-ghi_123", "curl"),
    ("sent Basic dXNlcjpwYXNzd29yZA== to", "dXNlcjpwYXNzd29yZA", " to"),
    ("postgres://app:s3cr3t@db:5432/x", "s3cr3t", "@db:5432/x"),
    ("postgres://app:s3@cr3t@db/x", "cr3t", "@db/x"),
    ("GET https://x.io/a?token=abc123&page=2", "abc123", "&page=2"),
    ("GET https://x.io/a?page=2&sig=Zm9v%3D#top", "Zm9v", "page=2"),
    ("GET https://x.io/a?key=hunter22", "hunter22", "https://x.io/a?key="),
    ("Server=db;User Id=sa;Password=p@ss!word;Database=x", "p@ss!word", ";Database=x"),
    ("password: hunter2", "hunter2", "password: "),
    ("PASSWORD = 'hunter two'", "hunter two", "PASSWORD"),
    ("{'client_secret': 'abc', 'n': 1}", "abc", "'n': 1"),
    ("Cookie: a=b1; c=d2\nHost: x", "d2", "Host: x"),
    ("paid with 4111 1111 1111 1111 today", "4111", "today"),
    ("paid with 5500-0000-0000-0004.", "5500", "paid with"),
    ("amex 378282246310005", "378282246310005", "amex"),
)
PLAIN = (
    "task-management-of-the-2026-portfolio-review",
    "risk-assessment-abcdefghijklmnop-12345",
    "input_tokens: 5, max_tokens=7, token_count: 12",
    "secretary: Bob",
    "tokenizer=bert-base",
    "a basic understanding of bearer authentication",
    "Basic infrastructure is bearer neutral",
    "https://x.io/a?page=2&monkey=7",
    "mailto:me@example.com",
    "https://x.io/@user/post",
    "key: value",
    "order 4111 1111 1111 1112 is no card",
    "at 1790000000000000000 ns",
    "trace 4bf92f3577b34da6a3ce929d0e0e4736",
    "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
    "AKIA is a prefix",
    "eyJ is how a JWT starts",
    '{"password": null, "secret": true}',
    "",
    "0000000000000000",
    "Passengers: 4, keys: 12",
)


@pytest.mark.parametrize("key", SECRET_KEYS)
def test_secret_keys(key: str) -> None:
    """The value of a key that names a secret is replaced wholly."""
    assert REDACTOR.key(key)


@pytest.mark.parametrize("key", PLAIN_KEYS)
def test_plain_keys(key: str) -> None:
    """Token counts, ids and other near misses keep their values."""
    assert not REDACTOR.key(key)


@pytest.mark.parametrize(("text", "secret", "rest"), SECRETS)
def test_secrets_in_texts(text: str, secret: str, rest: str) -> None:
    """A secret leaves a text, the rest stays, and a second pass changes nothing."""
    out = REDACTOR.text(text)
    assert REDACTED in out
    assert secret not in out
    assert rest in out
    assert REDACTOR.text(out) == out


@pytest.mark.parametrize("text", PLAIN)
def test_near_misses(text: str) -> None:
    """Text without a secret is untouched."""
    assert REDACTOR.text(text) == text


def nest(value: str, depth: int) -> str:
    """A text inside JSON inside JSON ..., as LLM messages and tool arguments are."""
    for _ in range(depth):
        value = json.dumps([{"role": "user", "content": value, "n": 7}])
    return value


def unnest(text: str, depth: int) -> str:
    """The innermost text again."""
    for _ in range(depth):
        message = json.loads(text)[0]
        assert message["n"] == 7
        text = message["content"]
    return text


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize(("text", "secret", "rest"), SECRETS)
def test_secrets_inside_json(text: str, secret: str, rest: str, depth: int) -> None:
    """At any depth of escaping the secret leaves, and the JSON around it stays valid."""
    for around in (text, f"x\n{text}", f'say "{text}" now'):
        inner = unnest(REDACTOR.text(nest(around, depth)), depth)
        assert secret not in inner
        assert REDACTED in inner


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "value", ["plain", 'with "quotes" in', "back\\slash\\", "line\nbreak", "", "é 'x'", 12345, None]
)
def test_json_members(value: Any, depth: int) -> None:
    """A member with a secret name loses its value, whatever is in it, at any depth."""
    text = nest(json.dumps({"password": value, "rest": [1, "x"]}), depth)
    member = json.loads(unnest(REDACTOR.text(text), depth))
    assert member["rest"] == [1, "x"]
    assert member["password"] == (value if value in ("", None) else REDACTED)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_card_number_as_json_number(depth: int) -> None:
    """A card number that is a JSON number becomes a JSON string."""
    out = REDACTOR.text(nest(json.dumps({"card": 4111111111111111, "x": 1}), depth))
    assert json.loads(unnest(out, depth)) == {"card": REDACTED, "x": 1}


_VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=12) | st.sampled_from([s for s, _, _ in SECRETS]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["password", "text", "api_key", "n"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(_VALUES, st.integers(0, 2))
def test_json_stays_json(value: Any, depth: int) -> None:
    """Redacted JSON is still JSON, and redacting twice changes nothing."""
    text = json.dumps(value)
    for _ in range(depth):
        text = json.dumps({"m": text})
    out = REDACTOR.text(text)
    json.loads(out)
    assert REDACTOR.text(out) == out


@given(st.text(alphabet="ab:=\"'\\ \n{}[],@/-_.0123456789tokenpaswrd", max_size=60))
def test_idempotent(text: str) -> None:
    """Redacting twice is redacting once, for any text."""
    once = REDACTOR.text(text)
    assert REDACTOR.text(once) == once


def test_settings() -> None:
    """Own patterns, allowed values and ignored keys do what the Collector's do."""
    redactor = Redactor(
        RedactionConfig(
            blocked_key_patterns=(".*iban.*",),
            blocked_values=("EMP-[0-9]+",),
            allowed_values=("AKIAIOSFODNN7EXAMPLE",),
            ignored_keys=("token",),
        )
    )
    assert redactor.key("customer.IBAN")
    assert not redactor.key("token")
    assert redactor.key("access_token")
    assert redactor.text("by EMP-77, iban: CH93") == "by [redacted], iban: [redacted]"
    assert redactor.text("AKIAIOSFODNN7EXAMPLE") == "AKIAIOSFODNN7EXAMPLE"
    assert redactor.text("is AKIAIOSFODNN7EXAMPLE") == "is [redacted]"


def test_problems() -> None:
    """All that is wrong with the settings is said at once."""
    config = RedactionConfig(allow_all_keys=False, blocked_values=("(",))
    assert len(list(config.problems())) == 2
    assert not list(RedactionConfig().problems())


_PIECES = st.one_of(
    st.sampled_from([text for text, _, _ in SECRETS]),
    st.sampled_from(PLAIN),
    st.text(max_size=20),
    st.sampled_from(["=", ":", '"', "\\n", " ", "password", "session", "key", "4111 1111"]),
)


@given(st.lists(_PIECES, max_size=5).map("".join))
def test_suspicious_misses_nothing(text: str) -> None:
    """A text that the redactor would change is always among those it is asked to read."""
    if REDACTOR.text(text) != text:
        assert list(REDACTOR.suspicious(pl.Series([text]))) == [0]


@pytest.mark.parametrize(("text", "secret", "rest"), SECRETS)
def test_suspicious_finds_each_secret(text: str, secret: str, rest: str) -> None:
    """Every kind of secret is found among harmless texts."""
    assert 1 in REDACTOR.suspicious(pl.Series(["nothing here", text, "nor here"]))


def test_suspicious_spares_prose() -> None:
    """Prose about tokens and passwords is not read a second time."""
    assert not list(
        REDACTOR.suspicious(pl.Series(["the password of a token is key to the session", "/a/b"]))
    )
