"""Which model makes the vectors: the built-in one, or another by name or path.

A model is known by what is in its files, not by its name: `embedder_id` holds their digest, the
index keeps it, and vectors of two ids are never compared.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from engram.exporters.embedding.codes import DIMS
from engram.exporters.errors import ModelUnavailable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BUILTIN: Final = "builtin"

_HUB_NAME: Final = re.compile(r"[\w.-]+/[\w.-]+")
_FILES: Final = frozenset((".safetensors", ".bin", ".json", ".txt", ".model"))
"""What makes a model's vectors; its card and its other formats do not."""

_MAX_CHARS: Final = 2_000
"""Of a text; models cut at 256 or 512 tokens, which is less."""

_BATCH: Final = 32
_HUB_TIMEOUT_S: Final = 10.0


class Embedder(Protocol):
    """Makes vectors of texts."""

    @property
    def name(self) -> str:
        """What to give to `load` for the same model: "builtin", a folder, or OWNER/NAME."""

    @property
    def dims(self) -> int:
        """Numbers of a vector."""

    @property
    def embedder_id(self) -> str:
        """Weights, dimensions and text rules: vectors of another id are not comparable."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One unit vector per text (n x dims); zeros where there is nothing to embed."""


def load(name: str = BUILTIN, *, download: bool = False) -> Embedder:
    """The model of this name: "builtin", a folder, or OWNER/NAME of the Hugging Face hub.

    A hub model is taken from this machine's cache; only with `download` is the network asked.

    Raises:
        ModelUnavailable: it cannot be loaded here. Full-text search needs no model.
        StoreError: the built-in model's files are broken.
    """
    if name == BUILTIN:
        from engram.exporters.embedding.static import StaticEmbedder

        return StaticEmbedder(DIMS)
    return TransformerEmbedder(name, download=download)


def canonical(name: str) -> str:
    """One name for one model: of a folder its absolute path."""
    path = Path(name).expanduser()
    return str(path.resolve()) if name != BUILTIN and path.is_dir() else name


class TransformerEmbedder:
    """A model run by sentence-transformers. Constructing imports torch (4 s) and loads it."""

    def __init__(self, name: str, *, download: bool = False) -> None:
        folder = _folder(name, download=download)
        self.name = canonical(name)
        self._model = _open(name, folder)
        self.dims = len(self._encode(["dimensions"])[0])
        self.embedder_id = f"{_short(name)}-{_digest(folder)[:12]}-{self.dims}-raw1"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `Embedder`. Texts go in as they are: masking costs these models a point of MRR."""
        import numpy as np

        vectors = np.zeros((len(texts), self.dims), dtype=np.float32)
        said = [place for place, text in enumerate(texts) if text.strip()]
        if said:
            vectors[said] = self._encode([texts[place][:_MAX_CHARS] for place in said])
        return vectors

    def _encode(self, texts: list[str]) -> NDArray[np.float32]:
        import numpy as np

        made = self._model.encode(
            texts,
            batch_size=_BATCH,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return np.asarray(made, dtype=np.float32)


def _folder(name: str, *, download: bool) -> Path:
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file() and not (path / "modules.json").is_file():
            raise ModelUnavailable(
                f"{path} is no sentence-transformers model: it has neither modules.json nor "
                "config.json; give the folder that SentenceTransformer.save() wrote"
            )
        return path.resolve()
    if path.exists() or not _HUB_NAME.fullmatch(name):
        raise ModelUnavailable(
            f"there is no model folder {name}; give a folder, OWNER/NAME of the Hugging Face hub, "
            f"or {BUILTIN}"
        )
    return _from_hub(name, download=download)


def _from_hub(name: str, *, download: bool) -> Path:
    try:
        from huggingface_hub import HfApi, snapshot_download
    except ModuleNotFoundError as error:
        raise _no_package(name, error) from error
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except Exception as error:
        if not download:
            raise ModelUnavailable(
                f"the model {name} is not on this machine; `engram reindex --model {name}` asks "
                "the network for it, or give a folder with a copy of it"
            ) from error
    try:
        HfApi().model_info(name, timeout=_HUB_TIMEOUT_S)  # else it tries again for 70 s
        return Path(snapshot_download(name))
    except Exception as error:
        raise ModelUnavailable(
            f"the model {name} is not on this machine and cannot be fetched "
            f"({type(error).__name__}: {_first_line(error)}); check the name and the network, or "
            "give a folder with a copy of it"
        ) from error


def _open(name: str, folder: Path) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging as chatter
    except ModuleNotFoundError as error:
        raise _no_package(name, error) from error
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    try:
        return SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    except Exception as error:
        raise ModelUnavailable(
            f"the model in {folder} cannot be loaded ({type(error).__name__}: "
            f"{_first_line(error)}); its files may be incomplete"
        ) from error


def _no_package(name: str, error: ModuleNotFoundError) -> ModelUnavailable:
    return ModelUnavailable(
        f'the model {name} needs the package {error.name}: pip install "engram[models]"'
    )


def _digest(folder: Path) -> str:
    """Of names and contents of the files that make the vectors."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in _FILES and path.is_file():
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            total.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return total.hexdigest()


def _short(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", Path(name).name) or "model"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]
