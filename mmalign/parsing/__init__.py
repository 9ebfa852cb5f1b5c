"""A sentence to its phrases and their relations."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mmalign.parsing.chunker import chunk_sentence as chunk_sentence
    from mmalign.parsing.phrases import Parsed as Parsed
    from mmalign.parsing.phrases import given_phrases as given_phrases
    from mmalign.parsing.phrases import parse_sentence as parse_sentence

# Loaded at first use, so that nobody waits for what is not needed.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "chunker": ["chunk_sentence"],
        "phrases": ["Parsed", "given_phrases", "parse_sentence"],
    },
)
