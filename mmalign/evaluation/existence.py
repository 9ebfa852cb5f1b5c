"""Phrases of things that are not in the picture: are they told from those that are?"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmalign.errors import InputError
from mmalign.evaluation.phrases import PhrasePicture
from mmalign.metrics import Float64Array
from mmalign.types import gives_json

if TYPE_CHECKING:
    from mmalign.alignment import PhraseScores

FALSE_LINKS = (0.05, 0.1, 0.2)
"""Rates of links of absent phrases for which thresholds are set."""


@dataclass(frozen=True, slots=True)
class Stranger:
    """A phrase of another picture, to be looked for in the place of one of a picture's own.

    Attributes:
        phrase: The other picture's phrase.
        replaced: Position of the own phrase that it stands for.
    """

    phrase: str
    replaced: int


def replace_phrases(pictures: Sequence[PhrasePicture], *, seed: int = 0) -> list[Stranger | None]:
    """Draw for each picture a phrase that is not of it.

    Args:
        pictures: The pictures.
        seed: Of the draws.

    Returns:
        For each picture a stranger whose head noun nothing said of the picture has, or None where none was found.
    """
    rng = np.random.default_rng(seed)
    every = [phrase for picture in pictures for phrase in picture.phrases]
    found: list[Stranger | None] = []
    for picture in pictures:
        text = " ".join((*picture.captions, *picture.phrases))
        drawn = (every[int(number)] for number in rng.integers(len(every), size=50))
        phrase = next((phrase for phrase in drawn if not is_named(phrase, text)), None)
        replaced = int(rng.integers(len(picture.phrases)))
        found.append(None if phrase is None else Stranger(phrase, replaced))
    return found


def is_named(phrase: str, text: str) -> bool:
    """Whether the last word of a phrase is in what was said of a picture.

    Args:
        phrase: The phrase.
        text: All that was said of the picture.

    Returns:
        Whether its last word, without a plural's s and regardless of case, is anywhere in it, in longer words too.
    """
    words = [word.strip(".,;:!?'\"") for word in phrase.lower().split()]
    head = next((word for word in reversed(words) if word), "")
    stem = head[:-1] if len(head) > 3 and head.endswith("s") else head
    return not stem or stem in text.lower()


@dataclass
class ExistenceSigns:
    """What a picture said of a phrase that is there and of one that is not, picture by picture.

    Attributes:
        pictures: Positions of the pictures.
        there: What speaks for the phrase that was replaced, one number a picture.
        strange: What speaks for the stranger.
        calibrated: Whether these are probabilities.
    """

    pictures: list[int] = field(default_factory=list)
    there: list[float] = field(default_factory=list)
    strange: list[float] = field(default_factory=list)
    calibrated: bool = True

    def add(self, number: int, found: PhraseScores, replaced: int) -> None:
        """Take what was found of a picture whose last phrase is the stranger."""
        signs = found.existence
        if signs is None:
            # Nothing was calibrated: how far the best place stands out is all there is.
            self.calibrated = False
            signs = found.heat.reshape(len(found.heat), -1).max(axis=1)
        self.pictures.append(number)
        self.there.append(float(signs[replaced]))
        self.strange.append(float(signs[-1]))


@dataclass(frozen=True, slots=True, eq=False)
class ExistenceTable:
    """How well absent phrases are told.

    Attributes:
        auroc: Probability that a phrase that is there has more that speaks for it than one that is not, 0 to 1.
        kept: For each rate of `FALSE_LINKS`, the share of the present phrases that are still linked.
        false_links: For each, the share of the absent phrases that are linked, on pictures on which the threshold
            was not set.
        at_half: Shares of present and of absent phrases with a probability of at least a half; None where the signs
            are no probabilities.
        n: Pictures.
    """

    auroc: float
    kept: Float64Array
    false_links: Float64Array
    at_half: tuple[float, float] | None
    n: int

    @gives_json
    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON-ready values, in percent."""
        payload: dict[str, Any] = {
            "n_pairs": self.n,
            "auroc": round(100 * self.auroc, 2),
            "at_false_link_rate": {
                f"{100 * rate:g}": {"kept": round(100 * kept, 2), "false_links": round(100 * false, 2)}
                for rate, kept, false in zip(FALSE_LINKS, self.kept.tolist(), self.false_links.tolist(), strict=True)
            },
        }
        if self.at_half is not None:
            kept, false = self.at_half
            payload["at_probability_0.5"] = {"kept": round(100 * kept, 2), "false_links": round(100 * false, 2)}
        return payload


def measure_existence(signs: ExistenceSigns, uris: Sequence[str]) -> ExistenceTable:
    """Measure how well absent phrases are told.

    Args:
        signs: What was found.
        uris: The pictures, all of them; they are halved by the names of their files, and each half's threshold is
            tried on the other.

    Returns:
        The figures.

    Raises:
        InputError: No picture in one of the halves.
    """
    there, strange = np.array(signs.there), np.array(signs.strange)
    halves = np.array([file_half(uris[number]) for number in signs.pictures], np.int64)
    if not all((halves == half).any() for half in (0, 1)):
        raise InputError(
            "absent phrases are measured in two halves, each by the other; the file names of these "
            f"{len({*signs.pictures})} pictures put all into one; give more pictures, or leave --absent out"
        )
    kept, false = np.zeros(len(FALSE_LINKS)), np.zeros(len(FALSE_LINKS))
    for half in (0, 1):
        tried = halves != half
        for place, rate in enumerate(FALSE_LINKS):
            threshold = conformal_threshold(strange[halves == half], rate)
            kept[place] += (there[tried] > threshold).sum() / len(there)
            false[place] += (strange[tried] > threshold).sum() / len(there)
    at_half = (float((there >= 0.5).mean()), float((strange >= 0.5).mean())) if signs.calibrated else None
    return ExistenceTable(auroc(there, strange), kept, false, at_half, len(there))


def conformal_threshold(strange: NDArray[Any], rate: float) -> float:
    """The least threshold that another absent phrase exceeds with at most a given probability.

    Args:
        strange: What speaks for n absent phrases, shape (n,).
        rate: The probability, above 0 and below 1.

    Returns:
        The threshold; infinity where n phrases are too few for the rate.

    Source: split conformal prediction, Vovk et al., Algorithmic Learning in a Random World, 2005.
    """
    place = math.ceil((len(strange) + 1) * (1 - rate))
    return math.inf if place > len(strange) else float(np.sort(strange)[place - 1])


def auroc(there: NDArray[Any], strange: NDArray[Any]) -> float:
    """Probability that the first exceeds the second, a tie counted half: the area under the ROC curve.

    Args:
        there: Signs of what is there, shape (n,).
        strange: Signs of what is not, shape (m,).

    Returns:
        From 0 to 1.
    """
    above = (there[:, None] > strange[None]).mean()
    return float(above + 0.5 * (there[:, None] == strange[None]).mean())


def file_half(uri: str) -> int:
    """To which of two halves a picture belongs, by a hash of its file's name: 0 or 1, the same everywhere."""
    name = uri.replace("\\", "/").rsplit("/", 1)[-1]
    return int(hashlib.md5(name.encode(), usedforsecurity=False).hexdigest(), 16) % 2
