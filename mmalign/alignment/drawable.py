"""What is drawn of an alignment, so that the drawing and the page need not know the class that calls them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mmalign.alignment.link import Link
from mmalign.types import Note, Phrase, Region


class Drawable(Protocol):
    """What a drawing and a page read of an alignment; the attributes of `Alignment` say what each is."""

    @property
    def sentence(self) -> str:
        """The sentence."""

    @property
    def phrases(self) -> Sequence[Phrase]:
        """Its phrases."""

    @property
    def regions(self) -> Sequence[Region]:
        """The picture's regions."""

    @property
    def links(self) -> Sequence[Link]:
        """Phrases and the regions that they got."""

    @property
    def unmatched_phrases(self) -> Sequence[int]:
        """Indices of the phrases that got none."""

    @property
    def notes(self) -> Sequence[Note]:
        """Remarks that a person should see."""

    @property
    def heat(self) -> NDArray[np.float32] | None:
        """Where each phrase is, shape (phrases, height, width), float32, 0 to 1, or None."""

    def probability(self, link: Link) -> float:
        """Say how probable the place of a link is, 0 to 1."""
