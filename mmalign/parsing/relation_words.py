"""Words that relate two phrases, and what they say of the places of the things that the phrases name."""

from __future__ import annotations

from collections.abc import Sequence

# The longest match counts. A kind of "" relates nothing in a picture.
_KINDS = {
    "left of": (
        "to the left of",
        "on the left of",
        "at the left of",
        "left of",
        "on the left side of",
        "to the left side of",
        "at the left side of",
        "to the left hand side of",
        "leftward of",
    ),
    "right of": (
        "to the right of",
        "on the right of",
        "at the right of",
        "right of",
        "on the right side of",
        "to the right side of",
        "at the right side of",
        "to the right hand side of",
    ),
    "above": ("above", "over", "high above", "up above"),
    "below": ("below", "under", "underneath", "beneath", "at the bottom of", "at the foot of"),
    "on": (
        "on",
        "onto",
        "upon",
        "on top of",
        "atop",
        "on the top of",
        "at the top of",
        "across",
        "off of",
        "up on",
        "out on",
        "down on",
        "aboard",
        "on the back of",
        "riding",
        "rides",
        "ride",
        "riding on",
        "down",
        "up",
    ),
    "in": (
        "in",
        "inside",
        "inside of",
        "into",
        "within",
        "in the middle of",
        "in the center of",
        "in the centre of",
        "through",
        "out in",
        "down in",
        "up in",
        "throughout",
        "amid",
        "among",
        "amongst",
        "surrounded by",
        "covered in",
        "covered with",
        "in the midst of",
        "at the center of",
    ),
    "between": ("between", "in between"),
    "near": (
        "near",
        "near to",
        "next to",
        "beside",
        "by",
        "close to",
        "in front of",
        "behind",
        "alongside",
        "along",
        "against",
        "around",
        "at",
        "to the side of",
        "on the side of",
        "at the side of",
        "by the side of",
        "at the edge of",
        "on the edge of",
        "along the edge of",
        "outside",
        "outside of",
        "past",
        "in back of",
        "toward",
        "towards",
        "opposite",
        "adjacent to",
        "nearby",
        "across from",
        "beyond",
        "along side",
        "along side of",
        "besides",
        "to",
        "at the end of",
        "in the front of",
        "up to",
        "away from",
        "from",
        "off",
        "out of",
        "up against",
    ),
    "holding": (
        "holding",
        "holds",
        "hold",
        "carrying",
        "carries",
        "carry",
        "grasping",
        "gripping",
        "clutching",
        "grabbing",
        "held",
        "holding on to",
        "holding onto",
        "lifting",
        "clutches",
        "grabs",
        "lifts",
    ),
    "wearing": ("wearing", "wears", "wear", "dressed in", "dressed as", "wearing only", "clad in", "wore"),
    "bigger": ("bigger than", "larger than", "taller than", "greater than"),
    "smaller": ("smaller than", "shorter than", "littler than", "tinier than"),
    "with": ("with", "of", "without", "for", "like", "about"),
    "": ("during", "since", "until", "till", "despite", "before", "after", "via", "per", "as", "than", "except"),
}
KINDS: dict[tuple[str, ...], str] = {tuple(words.split()): kind for kind, all_ in _KINDS.items() for words in all_}
_LONGEST = max(map(len, KINDS))
# Said with a preposition alone, without a verb, these narrow down which thing is meant.
SPATIAL = frozenset({"left of", "right of", "above", "below", "on", "in", "between", "near", "bigger", "smaller"})

# Where somebody goes, said of who does rather than of the place before: "walk in a line through a field".
MOTION = frozenset(
    {
        "through",
        "across",
        "along",
        "down",
        "up",
        "into",
        "toward",
        "towards",
        "past",
        "from",
        "onto",
        "around",
        "to",
        "over",
    }
)


def match_relation(words: Sequence[str], start: int) -> tuple[int, str] | None:
    """Find the longest known expression that begins at a word.

    Args:
        words: Words of a sentence in lower case.
        start: Where to look.

    Returns:
        How many words it takes and its kind, or None.
    """
    for length in range(min(_LONGEST, len(words) - start), 0, -1):
        kind = KINDS.get(tuple(words[start : start + length]))
        if kind is not None:
            return length, kind
    return None
