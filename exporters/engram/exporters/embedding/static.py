"""The built-in embedder: a vector per token, their mean, unit length. numpy and a tokenizer.

The matrix stays int8 in memory (7.5 MB at 256 dimensions); only the rows a batch uses are widened.
The dimensions are in the order of a PCA, so a shorter vector is the first part of the longer one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engram.exporters.embedding.masking import TEXT_VERSION, bare
from engram.exporters.errors import StoreError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MODEL_DIR: Final = Path(__file__).with_name("model")
WEIGHTS_SHA256: Final = "a2e0c6d6a293b588935a697499bf3d3dc2ec514f205796d0d36b1de437099f0b"
TOKENIZER_SHA256: Final = "8190073d87dcdd24761fe69b7c82b3fae0d5d21baba1194d4637baafc9482b3f"
MAX_DIMS: Final = 256
MAX_CHARS: Final = 1_000
"""Characters of a text that are embedded: the mean of a longer one is a blur."""

_TOKENS_AT_ONCE: Final = 8_192
"""Rows widened to float32 at once: 8 MB at 256 dimensions."""

_WORDS_KEPT: Final = 32_768
"""Words whose tokens are remembered (about 6 MB). The tokenizer costs 400 us for a text of 740
characters, which was most of embedding it; remembered words cost 10."""


class StaticEmbedder:
    """Embeds text. Constructing reads the model's files (0.1 s)."""

    def __init__(self, dims: int = MAX_DIMS) -> None:
        if not 1 <= dims <= MAX_DIMS:
            raise ValueError(f"dims must be 1..{MAX_DIMS}, not {dims}")
        # The tokenizer's own threads would cost a core per writer and forbid forking.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        import numpy as np
        from tokenizers import Tokenizer

        self.name = "builtin"
        self.dims = dims
        self._tokenizer: Any = Tokenizer.from_file(
            str(_checked(MODEL_DIR / "tokenizer.json", TOKENIZER_SHA256))
        )
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._words: dict[str, list[int]] = {}
        with np.load(_checked(MODEL_DIR / "static.int8.npz", WEIGHTS_SHA256)) as stored:
            self._rows: NDArray[np.int8] = np.ascontiguousarray(stored["q"][:, :dims])
            self._scale: NDArray[np.float32] = stored["scale"].astype(np.float32)

    @property
    def embedder_id(self) -> str:
        """Name, weights, dimensions and text rules: vectors of another id are not comparable."""
        return f"static-{WEIGHTS_SHA256[:12]}-{self.dims}-{TEXT_VERSION}"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One unit vector per text, zeros where there is nothing to embed (see `embed_raw`)."""
        return self.embed_raw([bare(text[:MAX_CHARS]) for text in texts])

    def embed_raw(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As `embed`, without masking first. A row of zeros MUST be treated as "no vector"."""
        import numpy as np

        out = np.zeros((len(texts), self.dims), dtype=np.float32)
        batch: list[int] = []
        places: list[int] = []
        starts: list[int] = []
        for place, ids in enumerate(self._tokens(texts)):
            if not ids:
                continue
            if batch and len(batch) + len(ids) > _TOKENS_AT_ONCE:
                self._sum(out, batch, places, starts)
                batch, places, starts = [], [], []
            places.append(place)
            starts.append(len(batch))
            batch.extend(ids)
        if batch:
            self._sum(out, batch, places, starts)
        length = np.linalg.norm(out, axis=1, keepdims=True)
        length[length == 0] = 1
        out /= length
        return out

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text. BERT's tokenizer sees each word alone, and words repeat."""
        known = self._words
        split = [text.split() for text in texts]
        new = list({word for words in split for word in words if word not in known})
        if len(known) + len(new) > _WORDS_KEPT:
            known.clear()
            new = list({word for words in split for word in words})
        for word, one in zip(
            new, self._tokenizer.encode_batch_fast(new, add_special_tokens=False), strict=True
        ):
            known[word] = one.ids
        return [list(chain.from_iterable(map(known.__getitem__, words))) for words in split]

    def _sum(
        self, out: NDArray[np.float32], ids: list[int], places: list[int], starts: list[int]
    ) -> None:
        import numpy as np

        picked = np.asarray(ids, dtype=np.int64)
        rows = self._rows[picked].astype(np.float32)
        rows *= self._scale[picked]
        out[places] = np.add.reduceat(rows, starts, axis=0)


def _checked(path: Path, sha256: str) -> Path:
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise StoreError(
            f"the built-in model is incomplete: {path}: {error.strerror}; reinstall engram"
        ) from error
    if found != sha256:
        raise StoreError(f"{path} is not the model this Engram was built with; reinstall engram")
    return path
