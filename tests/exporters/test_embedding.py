"""The built-in embedder, masking, and the codes of vectors."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.exporters.embedding import TEXT_VERSION, bare, mask
from engram.exporters.embedding.codes import CODE_BYTES, DIMS, Codes, cosines, pack
from engram.exporters.embedding.static import (
    MODEL_DIR,
    TOKENIZER_SHA256,
    WEIGHTS_SHA256,
    StaticEmbedder,
)


@pytest.fixture(scope="module")
def embedder() -> StaticEmbedder:
    """The model, loaded once."""
    return StaticEmbedder(DIMS)


TEXTS = [
    "psycopg2.OperationalError: connection to server failed: Connection refused",
    "the database does not answer",
    "a recipe for banana bread",
    "Ünïcode — 数据库连接失败 ☃",
]


@pytest.mark.parametrize(
    ("name", "sha256"),
    [("static.int8.npz", WEIGHTS_SHA256), ("tokenizer.json", TOKENIZER_SHA256)],
)
def test_the_model_files_are_the_fitted_ones(name: str, sha256: str) -> None:
    """The shipped files have the hashes that the code pins."""
    assert hashlib.sha256((MODEL_DIR / name).read_bytes()).hexdigest() == sha256


def test_the_embedder_id_names_weights_dimensions_and_text_rules(embedder: StaticEmbedder) -> None:
    """Anything that changes vectors changes the id."""
    assert embedder.embedder_id == f"static-{WEIGHTS_SHA256[:12]}-{DIMS}-{TEXT_VERSION}"
    assert StaticEmbedder(64).embedder_id != embedder.embedder_id


def test_vectors_have_unit_length_and_the_asked_dimensions(embedder: StaticEmbedder) -> None:
    """One float32 row per text, of length 1."""
    vectors = embedder.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), DIMS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_a_batch_gives_what_single_calls_give(embedder: StaticEmbedder) -> None:
    """Neighbours in a batch, and remembered words, change nothing."""
    many = [f"{text} again {n}" for n in range(200) for text in TEXTS]  # over one slice of tokens
    together = embedder.embed(many)
    alone = np.vstack([embedder.embed([text]) for text in many])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_words_alone_have_the_tokens_of_the_whole_text(embedder: StaticEmbedder) -> None:
    """Tokenizing by remembered words is what the tokenizer does with the text."""
    whole = embedder._tokenizer.encode_batch_fast(TEXTS, add_special_tokens=False)
    assert embedder._tokens(TEXTS) == [one.ids for one in whole]


@pytest.mark.parametrize("text", ["", "   \n", "12345 0xdeadbeef 10.0.0.1"])
def test_a_text_of_nothing_has_no_vector(embedder: StaticEmbedder, text: str) -> None:
    """Nothing to embed gives zeros, alone and between others."""
    assert not embedder.embed([text]).any()
    assert not embedder.embed([TEXTS[0], text, TEXTS[1]])[1].any()


def test_no_texts_give_no_vectors(embedder: StaticEmbedder) -> None:
    """An empty batch is an empty matrix."""
    assert embedder.embed([]).shape == (0, DIMS)


def test_meaning_decides_the_similarity(embedder: StaticEmbedder) -> None:
    """A paraphrase is nearer than an unrelated text, and loading again changes nothing."""
    vectors = embedder.embed(TEXTS[:3])
    near, far = float(vectors[0] @ vectors[1]), float(vectors[0] @ vectors[2])
    assert near > far + 0.1
    again = StaticEmbedder(DIMS).embed(TEXTS[:3])
    np.testing.assert_array_equal(vectors, again)


# -- masking ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("user 4711 not found", "user <n> not found"),
        ("[Errno 28] No space left", "[Errno 28] No space left"),
        ("HTTP/1.1 429 Too Many Requests", "HTTP/1.1 429 Too Many Requests"),
        ("exited with exit code 137, pid 4312", "exited with exit code 137, pid <n>"),
        ("status=503 took 12ms", "status=503 took <n>"),
        ("at 2026-01-02T10:11:12.123Z from 10.0.0.1:443", "at <time> from <ip>"),
        ("0xDEADBEEF in /usr/lib/app/main.py", "<hex> in <path>"),
        ("mail a.b@example.org", "mail <email>"),
        ("get https://example.org/a?b=1 now", "get <url> now"),
        ("id 6f1c2f6e-9f0a-4c1e-8f3a-0123456789ab", "id <uuid>"),
        ("task_12 on node-5", "task_<n> on node-<n>"),
        ("commit 9fceb02d0ae598e95dc970b74767f19372d61af8", "commit <hex>"),
        ("GET /api/items/17 → 404 in 12ms", "GET /api/items/<n> → 404 in <n>"),
        ("POST api.example.org/v1/things/17 → 200", "POST api.example.org/v1/things/<n> → 200"),
        ("utf8 and sha256 and x2 stay", "utf8 and sha256 and x2 stay"),
        ("many   spaces\n\tand lines", "many spaces and lines"),
        (r"C:\Users\me\app.py", "<path>"),
    ],
)
def test_masking_keeps_what_means_something(text: str, masked: str) -> None:
    """Volatile tokens go, codes and names stay."""
    assert mask(text) == masked


@given(st.text(max_size=200))
def test_masking_is_idempotent(text: str) -> None:
    """Masked text is not masked further."""
    assert mask(mask(text)) == mask(text)


_PIECES = st.sampled_from(
    [
        *("status=", "error", "exit code", "HTTP/", " ", "-", "_", "#", ":", ".", "/", "\\", "@"),
        *("<", ">", "<n>", "0x", "12", "7.5", "GET /", "→ ", "10.0.0.1", "ab12cd34ef", "[", ","),
        *("a.b@c.de", "https://", "2026-01-02"),
    ]
)


@given(st.lists(_PIECES, max_size=12).map("".join))
def test_masking_is_idempotent_on_nasty_pieces(text: str) -> None:
    """Glued ids, codes and placeholders too."""
    assert mask(mask(text)) == mask(text)


@given(st.integers(0, 10**9), st.uuids(), st.ip_addresses(v=4))
def test_two_occurrences_give_one_text(number: int, id_: object, address: object) -> None:
    """What differs between two occurrences of one template is gone."""
    text = f"order {number} ({id_}) failed on {address}: timed out after {number}ms"
    assert mask(text) == "order <n> (<uuid>) failed on <ip>: timed out after <n>"
    assert bare(text).replace("(", "").replace(")", "").split() == [
        "order", "failed", "on", ":", "timed", "out", "after",
    ]  # fmt: skip


@given(st.sampled_from(["errno", "status", "exit code", "HTTP", "signal"]), st.integers(1, 999))
def test_codes_stay(word: str, code: int) -> None:
    """A code behind its word survives, with and without punctuation."""
    for text in (f"{word} {code}", f"{word}: {code},", f"{word.split()[-1]}={code}"):
        assert str(code) in mask(text)


def test_a_very_long_word_does_not_take_long() -> None:
    """No rule is quadratic enough to be felt on a text as long as we mask."""
    for piece in ("1,", "a.", "/a", "a@", "0x1", "ab:", "-1", "f0"):
        mask(piece * 500)


# -- codes -----------------------------------------------------------------------------------------


def test_codes_keep_the_cosine(embedder: StaticEmbedder) -> None:
    """66 bytes tell the cosine well enough to rank (outliers of a vector are clipped)."""
    vectors = embedder.embed(TEXTS)
    codes = pack(vectors)
    assert codes.shape == (len(TEXTS), CODE_BYTES)
    for vector in vectors:
        np.testing.assert_allclose(cosines(codes, vector), vectors @ vector, atol=0.2)


def test_no_vector_scores_zero(embedder: StaticEmbedder) -> None:
    """A row without a vector is never near anything."""
    codes = pack(embedder.embed(["", TEXTS[0]]))
    scores = cosines(codes, embedder.embed([TEXTS[0]])[0])
    assert scores[0] == 0
    assert scores[1] > 0.8


def test_cosines_of_some_rows_are_those_of_all() -> None:
    """Few are gathered, many are looked up with the others: the numbers are equal."""
    random = np.random.default_rng(3)
    vectors = random.normal(size=(70_000, DIMS)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    codes = Codes(CODE_BYTES)
    codes.append(pack(vectors))
    every = codes.cosines(vectors[5])
    for share in (0.0001, 0.1, 0.9):
        only = random.random(len(vectors)) < share
        np.testing.assert_array_equal(codes.cosines(vectors[5], only), np.where(only, every, 0))


def test_sums_in_16_bits_are_right(embedder: StaticEmbedder) -> None:
    """To 0.0006 of what the levels say, for any query, and no sum runs over."""
    random = np.random.default_rng(4)
    vectors = random.normal(size=(500, DIMS)).astype(np.float32)
    queries = [vectors[7], np.eye(1, DIMS, 5, dtype=np.float32)[0], np.full(DIMS, -1.0), vectors[3]]
    queries[3] = np.where(np.arange(DIMS) < 3, queries[3], 0)
    codes = pack(vectors)
    bytes_ = codes[:, :-2].astype(np.int64)
    levels = np.stack([bytes_ // 36, bytes_ // 6 % 6, bytes_ % 6], axis=2).reshape(500, -1) - 2.5
    lengths = 1 / codes[:, -2:].copy().view(np.float16)[:, 0].astype(np.float64)
    for query in queries:
        unit = (query / np.linalg.norm(query)).astype(np.float32)
        np.testing.assert_allclose(cosines(codes, unit), levels @ unit / lengths, atol=6e-4)
