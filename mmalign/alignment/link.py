"""`Link`: a phrase and a region that belong together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmalign.types import gives_json


@dataclass(frozen=True, slots=True)
class Link:
    """A phrase and a region that belong together.

    Attributes:
        phrase: Index of the phrase.
        region: Index of the region.
        score: Probability of this region among all and none, given where the other phrases are, 0 to 1.
    """

    phrase: int
    region: int
    score: float

    @gives_json
    def to_dict(self) -> dict[str, Any]:
        """Return the link as JSON-ready values."""
        return {"phrase": self.phrase, "region": self.region, "score": self.score}
