"""Noun phrases by rules: determiners, numbers, adjectives and compound nouns, as English captions have them."""

from __future__ import annotations

from collections.abc import Sequence

from mmalign.parsing import lexicon as words
from mmalign.parsing.attachment import attach
from mmalign.parsing.chunks import Chunk, mend, merge_counts
from mmalign.parsing.coreference import with_antecedents
from mmalign.parsing.tagger import Token, is_plural, tag, tokenize
from mmalign.types import Phrase, Relation


def chunk_sentence(sentence: str) -> tuple[tuple[Phrase, ...], tuple[Relation, ...]]:
    """Find the phrases of an English sentence and their relations by rules.

    Args:
        sentence: One or more sentences.

    Returns:
        `(phrases, relations)`.
    """
    tokens = tokenize(sentence)
    tag(tokens)
    chunks = find_chunks(tokens)
    phrases = tuple(to_phrase(sentence, tokens, chunk) for chunk in chunks)
    relations, narrowed = attach(tokens, [(chunk.first, chunk.last) for chunk in chunks], phrases)
    return with_antecedents(phrases, relations, narrowed)


def find_chunks(tokens: Sequence[Token]) -> list[Chunk]:
    """Find the noun phrases of tagged tokens.

    Args:
        tokens: Tagged.

    Returns:
        The chunks, in order, not overlapping.
    """
    chunks: list[Chunk] = []
    i = 0
    while i < len(tokens):
        chunk = _chunk_at(tokens, i)
        if chunk is not None:
            chunks.append(chunk)
        i = i + 1 if chunk is None else chunk.last + 1
    return merge_counts(tokens, mend(tokens, chunks))


def _chunk_at(tokens: Sequence[Token], first: int) -> Chunk | None:
    """The longest noun phrase that begins at a token."""
    head = last = -1
    i = first
    while i < len(tokens):
        tag_ = tokens[i].tag
        if tag_ == "noun":
            head = last = i
        elif tag_ == "pron":
            return Chunk(i, i, i) if i == first else None
        elif tag_ == "poss":
            if head != i - 1:
                break
            head = -1
        elif tag_ == "det":
            if i > first and tokens[i - 1].tag != "det":
                break
        elif tag_ == "adv":
            # "a very large dog", "brightly colored kites"
            if head >= 0 or i + 1 >= len(tokens) or tokens[i + 1].tag != "adj" or (i == first and not _ly(tokens[i])):
                break
        elif tag_ in ("punct", "conj"):
            if head >= 0 or i == first or not _joins(tokens, i):
                break
        elif tag_ in ("adj", "num"):
            if head >= 0 and (tag_ == "num" or i + 1 >= len(tokens) or tokens[i + 1].tag != "noun"):
                break
            if head < 0:
                last = i
        else:
            break
        i += 1
    if head < 0:
        return _without_noun(tokens, first, last)
    return Chunk(first, last, head)


def _ly(token: Token) -> bool:
    return token.lower.endswith("ly")


def _joins(tokens: Sequence[Token], i: int) -> bool:
    """Whether a comma or conjunction stands between two adjectives, as in `red , white and blue`."""
    if tokens[i].lower not in (",", "and", "or", "&") or tokens[i - 1].tag not in ("adj", "conj", "punct"):
        return False
    after = i + 1
    if after < len(tokens) and tokens[after].lower in ("and", "or"):
        after += 1
    return after < len(tokens) and tokens[after].tag == "adj"


def _without_noun(tokens: Sequence[Token], first: int, last: int) -> Chunk | None:
    """Colours and numbers stand for what has them: `a girl in red`, `two are running`."""
    if last < 0 or (first and tokens[first - 1].tag == "aux"):
        # "it is red" names nothing new.
        return None
    if tokens[last].lower in words.COLOURS or (first == last and tokens[last].lower in words.NUMBERS):
        return Chunk(first, last, last)
    if tokens[last].lower in ("other", "another", "others"):
        return Chunk(first, last, last)
    return None


def to_phrase(sentence: str, tokens: Sequence[Token], chunk: Chunk) -> Phrase:
    """Describe a chunk.

    Args:
        sentence: The sentence.
        tokens: Its tagged tokens.
        chunk: The chunk.

    Returns:
        The phrase, without its antecedent.
    """
    inside = tokens[chunk.first : chunk.last + 1]
    lowered = [token.lower for token in inside]
    head = tokens[chunk.head].lower
    count = None
    for token in inside:
        if token.tag == "num" and count is None and token.lower not in ("dozen", "hundred"):
            count = words.NUMBERS.get(token.lower) or (int(token.lower) if token.lower.isdecimal() else None)
    if "of" in lowered:
        amount = words.COLLECTIONS.get(lowered[lowered.index("of") - 1])
        count = amount if count is None else count
    elif "both" in lowered:
        count = 2
    paired = head in words.PAIRED
    start, end = inside[0].start, inside[-1].end
    modifiers = tuple(
        token.lower
        for token in tokens[chunk.first : chunk.head]
        if token.tag in ("adj", "noun") and token.lower not in words.COLLECTIONS
    )
    return Phrase(
        text=sentence[start:end],
        start=start,
        end=end,
        head=tokens[chunk.head].text,
        modifiers=modifiers,
        plural=not paired and (is_plural(head) or (count or 0) > 1 or head in ("they", "them", "themselves")),
        count=None if paired else count,
        abstract=is_abstract(head, modifiers),
    )


def is_abstract(head: str, modifiers: Sequence[str]) -> bool:
    """Whether a phrase names nothing that can be seen in one place.

    Args:
        head: Its noun, in lower case.
        modifiers: The words before it.

    Returns:
        True for `the background`, `a sunny day`.
    """
    return head in words.ABSTRACT and not (head in ("ride", "match", "picture") and modifiers)
