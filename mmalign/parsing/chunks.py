"""Runs of tokens that are noun phrases, and what is put right of them whichever parser found them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mmalign.parsing import lexicon as words
from mmalign.parsing.tagger import Token, is_plural, singular


@dataclass(frozen=True, slots=True)
class Chunk:
    """A noun phrase as a run of tokens.

    Attributes:
        first: Its first token.
        last: Its last token, inclusive.
        head: The token of its head.
    """

    first: int
    last: int
    head: int


# Words that name nothing by themselves.
_EMPTY = (
    words.DETERMINERS
    | words.POSSESSIVES
    | words.PREPOSITIONS
    | words.CONJUNCTIONS
    | words.AUXILIARIES
    | words.RELATIVES
    | words.ADVERBS
)
# And yet these do: "another follows", "some sit", "leans on her"; and these behind an article, such as "the home".
_NAMING = words.NAMING_PRONOUNS | words.PRONOUNS.keys() | {"some"}
_NOUNS = words.ADVERBS | {"inside", "opposite", "outside", "past", "round"}


def mend(tokens: Sequence[Token], chunks: Sequence[Chunk], *, coarse: bool = False) -> list[Chunk]:
    """Part what is no noun phrase from chunks: verbs taken for nouns, words that name nothing.

    Args:
        tokens: Tagged; the tag of what turns out to be a verb is changed.
        chunks: In order, not overlapping.
        coarse: Whether they may hold several phrases, such as `a dog drinking water` or `a dress and cap`.

    Returns:
        The chunks that are left, in order.
    """
    parted = (part for chunk in chunks for part in (_parts(tokens, chunk) if coarse else (chunk,)))
    trimmed = (_without_verb(tokens, part) for part in parted)
    return [kept for part in trimmed if (kept := _naming(tokens, part)) is not None]


def _parts(tokens: Sequence[Token], chunk: Chunk) -> Iterator[Chunk]:
    """The phrases of a chunk, parted where a noun is followed by `and` or by what somebody does."""
    first = chunk.first
    for i in range(chunk.first + 1, chunk.last + 1):
        if i <= first or tokens[i - 1].tag != "noun" or tokens[i - 1].lower in words.ADJECTIVES:
            continue
        rest = tokens[i + 1 : chunk.last + 1]
        if tokens[i].tag == "conj" and tokens[i].lower in ("and", "or", "&"):
            # "a snow and rock covered mountain" is one.
            if not rest or any(token.tag == "verb" or token.lower in words.COMPOUNDED for token in rest):
                continue
        elif _done(tokens, first, i, chunk.last):
            tokens[i].tag = "verb"
        else:
            continue
        end = _end(tokens, first, i) if tokens[i].tag == "verb" else i - 1
        yield Chunk(first, end, end)
        first = i + 1
    if first <= chunk.last:
        yield Chunk(first, chunk.last, max(chunk.head, first))


def _done(tokens: Sequence[Token], first: int, i: int, last: int) -> bool:
    """Whether an -ing form behind a noun says what that does: `a runner jogging`, `a dog drinking water`."""
    word = tokens[i].lower
    if not word.endswith("ing") or len(word) < 5 or word in words.ING_NOUNS:
        return False
    someone = singular(tokens[i - 1].lower) in words.PEOPLE or is_plural(tokens[i - 1].lower)
    return word in words.DOING or someone or (i == last and tokens[first].tag in ("det", "num"))


def _without_verb(tokens: Sequence[Token], chunk: Chunk) -> Chunk:
    """A chunk without a verb that was taken for its head: `a dog leaps` has the article of one, the ending of many."""
    last = chunk.last
    if chunk.head != last or last - chunk.first < 2 or tokens[chunk.first].lower not in ("a", "an", "another", "one"):
        return chunk
    before, word = tokens[last - 1], tokens[last].lower
    counted = before.lower in words.COLLECTIONS or before.lower in words.NUMBERS
    if before.tag != "noun" or counted or is_plural(before.lower) or not (is_plural(word) and word.endswith("s")):
        return chunk
    tokens[last].tag = "verb"
    end = _end(tokens, chunk.first, last)
    return Chunk(chunk.first, end, end)


def _end(tokens: Sequence[Token], first: int, verb: int) -> int:
    """The noun that a verb is said of: the one before it, but in `a man rock climbing` the man."""
    end = verb - 1
    if end > first and singular(tokens[end - 1].lower) in words.PEOPLE:
        tokens[end].tag = "adv"
        return end - 1
    return end


def _naming(tokens: Sequence[Token], chunk: Chunk) -> Chunk | None:
    """A chunk without words at its end that name nothing; None where no other is left, as of `and of the`."""
    last = chunk.last
    while last >= chunk.first and not _names(tokens, chunk.first, last):
        last -= 1
    if last < chunk.first:
        return None
    return chunk if last == chunk.last else Chunk(chunk.first, last, min(chunk.head, last))


def _names(tokens: Sequence[Token], first: int, i: int) -> bool:
    word = tokens[i].lower
    if not any(sign.isalnum() for sign in word):
        return False
    return word not in _EMPTY or word in _NAMING or (word in _NOUNS and i > first and tokens[i].tag == "noun")


def merge_counts(tokens: Sequence[Token], chunks: Sequence[Chunk]) -> list[Chunk]:
    """Make one phrase of what counts and what is counted, such as `a group` of `people`, `two` of `the dogs`.

    Args:
        tokens: Tagged.
        chunks: In order.

    Returns:
        The chunks, the head of a merged one that of what is counted.
    """
    merged: list[Chunk] = []
    for chunk in chunks:
        if merged and _counts(tokens, merged[-1], chunk):
            chunk = Chunk(merged.pop().first, chunk.last, chunk.head)
        merged.append(chunk)
    return merged


def _counts(tokens: Sequence[Token], one: Chunk, other: Chunk) -> bool:
    """Whether `one of other` is one phrase, such as `a group of people`, `two of the dogs`."""
    if other.first != one.last + 2 or tokens[one.last + 1].lower != "of":
        return False
    head = tokens[one.head].lower
    return head in words.COLLECTIONS or head in words.NUMBERS or head in ("some", "all", "both", "one")
