"""Which phrase of a sentence belongs to which region of a picture."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mmalign.alignment.aligner import MATCHING as MATCHING
    from mmalign.alignment.aligner import Aligner as Aligner
    from mmalign.alignment.aligner import PhraseScores as PhraseScores
    from mmalign.alignment.aligner import Picture as Picture
    from mmalign.alignment.aligner import align as align
    from mmalign.alignment.result import Alignment as Alignment

# Loaded at first use, so that nobody waits for what is not needed.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "aligner": ["Aligner", "PhraseScores", "MATCHING", "Picture", "align"],
        "result": ["Alignment"],
    },
)
