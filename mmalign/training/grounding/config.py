"""How a grounding head is trained."""

from __future__ import annotations

from dataclasses import dataclass

from mmalign.training.options import check_range
from mmalign.types import field_values


@dataclass(frozen=True, slots=True)
class HeadTraining:
    """How the head is trained.

    Attributes:
        epochs: Passes over the pictures.
        batch: Pictures in a step, all their phrases with them.
        rate: Peak of the learning rate.
        decay: Weight decay of matrices.
        noise: Share of a cell's features that is left out at random, and of the phrase's.
        strangers: Phrases of other pictures that are looked for in each picture and should not be found.
        average: Weight of the past in the running mean of the weights, which is what is kept.
        seed: Of all random draws.
    """

    epochs: int = 10
    batch: int = 16
    rate: float = 2e-3
    decay: float = 0.05
    noise: float = 0.1
    strangers: int = 2
    average: float = 0.995
    seed: int = 0

    def __post_init__(self) -> None:
        values = field_values(self)
        for name, least in (("epochs", 1), ("batch", 1), ("decay", 0), ("strangers", 0), ("seed", 0)):
            check_range(name, values[name], least=least)
        check_range("rate", self.rate, least=0, above=True)
        check_range("noise", self.noise, least=0, most=1)
        check_range("average", self.average, least=0, most=1)
