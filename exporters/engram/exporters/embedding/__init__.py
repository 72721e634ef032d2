"""Text to vectors, offline: the built-in static model, and the masking that goes before it.

Importing this costs nothing; numpy and the tokenizer are loaded with the model.
"""

from engram.exporters.embedding.masking import TEXT_VERSION, bare, mask

__all__ = ["TEXT_VERSION", "bare", "mask"]
