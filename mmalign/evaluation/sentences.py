"""Which phrases of a picture are matched together: those of one caption, with what the caption says of their places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mmalign.parsing import Parsed, given_phrases, parse_sentence
from mmalign.types import Phrase, Relation


@dataclass(frozen=True, slots=True)
class Sentence:
    """Phrases that are matched together.

    Attributes:
        members: Positions of the phrases among those of the picture.
        parsed: The phrases, in the same order, and the relations between them.
    """

    members: tuple[int, ...]
    parsed: Parsed


def by_caption(phrases: Sequence[str], captions: Sequence[str], *, parser: str = "auto") -> list[Sentence]:
    """Take the phrases of a picture apart by the captions that they come from.

    Args:
        phrases: The phrases of the picture, each once.
        captions: Its captions.
        parser: As for `parse_sentence`, which says what a caption tells of the places of its phrases.

    Returns:
        Sentences, in the order of the captions, that hold each phrase once: with the caption that has most phrases
        which are in no caption before it. A phrase that is in no caption stands alone.
    """
    left = dict.fromkeys(range(len(phrases)))
    found: list[Sentence] = []
    waiting = list(range(len(captions)))
    while left and waiting:
        members = {
            number: [index for index in left if place(captions[number], phrases[index]) is not None]
            for number in waiting
        }
        best = max(waiting, key=lambda number: len(members[number]))
        if not members[best]:
            break
        found.append(_read(captions[best], members[best], phrases, parser))
        waiting.remove(best)
        for index in members[best]:
            del left[index]
    alone = [Sentence((index,), given_phrases("", [phrases[index]])) for index in left]
    return found + alone


def place(caption: str, phrase: str) -> tuple[int, int] | None:
    """Where a phrase stands in a caption, as whole words and regardless of case: start and end, or None."""
    text, wanted, start = caption.lower(), phrase.lower(), 0
    while (start := text.find(wanted, start)) >= 0:
        end = start + len(wanted)
        if not text[start - 1 : start].isalnum() and not text[end : end + 1].isalnum():
            return start, end
        start += 1
    return None


def _read(caption: str, members: Sequence[int], phrases: Sequence[str], parser: str) -> Sentence:
    parsed = parse_sentence(caption, parser=parser)
    names: dict[int, int] = {}
    taken: list[Phrase] = []
    for position, index in enumerate(members):
        start, end = place(caption, phrases[index]) or (-1, -1)
        own = Phrase(phrases[index], start, end, head=phrases[index].split()[-1])
        shared = [max(0, min(end, other.end) - max(start, other.start)) for other in parsed.phrases]
        # The parser's own phrase knows of plurals and numbers; it may have drawn the borders elsewhere.
        number = max(range(len(shared)), key=shared.__getitem__) if any(shared) else -1
        if number >= 0 and number not in names:
            names[number] = position
            own = replace(parsed.phrases[number], text=phrases[index], start=start, end=end, antecedent=None)
        taken.append(own)
    relations = [
        Relation(
            names[relation.subject], tuple(names[other] for other in relation.objects), relation.kind, relation.text
        )
        for relation in parsed.relations
        if relation.subject in names and all(other in names for other in relation.objects)
    ]
    return Sentence(tuple(members), given_phrases(caption, taken, relations))
