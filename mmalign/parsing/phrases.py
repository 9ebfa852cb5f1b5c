"""The phrases of a sentence that may name something in a picture, and what the sentence says of their places."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmalign.errors import InputError, MissingExtraError, ModelUnavailableError
from mmalign.parsing.chunker import chunk_sentence
from mmalign.parsing.spacy_parser import spacy_sentence
from mmalign.types import Note, Phrase, Relation


@dataclass(frozen=True, slots=True)
class Parsed:
    """A sentence and its parts.

    Attributes:
        sentence: As given.
        phrases: In the order of the sentence; `Phrase.antecedent` is an index into them.
        relations: Their subjects and objects are indices into `phrases`.
        parser: What found them: `rules`, `spacy`, or `given` for the caller's own.
        notes: Remarks that a person should see, such as that spaCy is not installed.
    """

    sentence: str
    phrases: tuple[Phrase, ...] = ()
    relations: tuple[Relation, ...] = ()
    parser: str = "rules"
    notes: tuple[Note, ...] = ()


def parse_sentence(sentence: str, *, parser: str = "auto") -> Parsed:
    """Find the phrases of a sentence and the relations between them.

    Args:
        sentence: One or more sentences of any length.
        parser: `rules` for the word lists and patterns that come with this package (English); `spacy` for spaCy with
            the English model of the extra `phrases`; `spacy:NAME` for another installed spaCy model, such as
            `spacy:de_core_news_sm`; `auto` for spaCy where it is installed, else the rules, which `notes` then says.

    Returns:
        The phrases and relations; none where the sentence names nothing.

    Raises:
        InputError: The sentence is not text or is empty, or the parser's name means nothing.
        MissingExtraError: `spacy` where it is not installed.
        ModelUnavailableError: The spaCy model is not here, or its files are damaged.

    Example:
        >>> parsed = parse_sentence("a dog to the left of two bicycles", parser="rules")
        >>> [phrase.text for phrase in parsed.phrases], parsed.relations[0].kind
        (['a dog', 'two bicycles'], 'left of')
    """
    _check_sentence(sentence)
    if not isinstance(parser, str) or (parser not in ("auto", "rules", "spacy") and not parser.startswith("spacy:")):
        raise InputError(f"parser is auto, rules, spacy or spacy:MODEL, got {parser!r}")
    if parser == "rules":
        return Parsed(sentence, *chunk_sentence(sentence), "rules")
    try:
        return Parsed(sentence, *spacy_sentence(sentence, parser.partition(":")[2] or None), "spacy")
    except (MissingExtraError, ModelUnavailableError) as error:
        if parser != "auto":
            raise
        return Parsed(sentence, *chunk_sentence(sentence), "rules", (Note(f"phrases were found by rules: {error}"),))


def given_phrases(sentence: str, phrases: Sequence[str | Phrase], relations: Sequence[Relation] = ()) -> Parsed:
    """Take the caller's own phrases and relations, in any language.

    Args:
        sentence: The sentence that they come from; may be empty.
        phrases: Texts or `Phrase`s. A text that occurs in the sentence gets its place there: equal texts one
            occurrence after another, as far as there are so many, regardless of case.
        relations: Their subjects and objects are indices into `phrases`.

    Returns:
        The phrases, in the order given, and the relations.

    Raises:
        InputError: A phrase is empty or not text, its place is not in the sentence, or a relation names a phrase that
            is not there.

    Example:
        >>> given_phrases("一只狗在雪地里", ["狗", "雪地"]).phrases[1].start
        4
    """
    if not isinstance(sentence, str):
        raise InputError(f"a sentence is text, got {type(sentence).__name__}")
    if isinstance(phrases, str) or not isinstance(phrases, Sequence):
        raise InputError(f"phrases are a list of texts, got {type(phrases).__name__} {phrases!r}; put it into a list")
    used: dict[str, int] = {}
    found = tuple(_given(sentence, phrase, used) for phrase in phrases)
    for i, phrase in enumerate(found):
        if phrase.antecedent is not None and (phrase.antecedent == i or not 0 <= phrase.antecedent < len(found)):
            raise InputError(
                f"phrase {i} ({phrase.text!r}) stands for phrase {phrase.antecedent}, which is not another one of the "
                f"{len(found)} phrases"
            )
    for relation in relations:
        check_relation(relation, found)
    return Parsed(sentence, found, tuple(relations), "given")


def check_relation(relation: Relation, phrases: Sequence[Phrase]) -> None:
    """Refuse a relation that names phrases that are not there.

    Args:
        relation: The relation.
        phrases: The phrases that its indices mean.

    Raises:
        InputError: It is not a `Relation`, an index is out of range, it has no object, or its subject is one of them.
    """
    if not isinstance(relation, Relation):
        raise InputError(f"expected a Relation(subject, objects, kind), got {type(relation).__name__} {relation!r}")
    for index in (relation.subject, *relation.objects):
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(phrases):
            raise InputError(
                f"the relation {relation.kind!r} names phrase {index!r}, but there are {len(phrases)} phrases, counted "
                f"from 0: {[phrase.text for phrase in phrases]}"
            )
    if not relation.objects or relation.subject in relation.objects:
        raise InputError(
            f"the relation {relation.kind!r} needs a subject and one or more other phrases as objects, got subject "
            f"{relation.subject} and objects {list(relation.objects)}"
        )


def _check_sentence(sentence: Any) -> None:
    if not isinstance(sentence, str):
        raise InputError(f"a sentence is text, got {type(sentence).__name__}; pass a str")
    if not sentence.strip():
        raise InputError("the sentence is empty; say what to look for in the picture")


def _given(sentence: str, phrase: str | Phrase, used: dict[str, int]) -> Phrase:
    """The caller's phrase with its place in the sentence; `used` holds where the search for a text goes on."""
    if isinstance(phrase, Phrase):
        placed = phrase.start >= 0 or phrase.end >= 0
        if placed and not 0 <= phrase.start < phrase.end <= len(sentence):
            raise InputError(
                f"the phrase {phrase.text!r} is said to be at {phrase.start} to {phrase.end} of a sentence of "
                f"{len(sentence)} characters; leave start and end out to have it looked up"
            )
        if placed or not phrase.text.strip():
            if not phrase.text.strip():
                raise InputError("a phrase is empty; each must say what to look for")
            return phrase
        start, end = _place(sentence, phrase.text, used)
        return Phrase(
            phrase.text,
            start,
            end,
            phrase.head or phrase.text,
            phrase.modifiers,
            phrase.plural,
            phrase.count,
            phrase.antecedent,
            phrase.abstract,
        )
    if not isinstance(phrase, str):
        raise InputError(f"a phrase is text or a Phrase, got {type(phrase).__name__} {phrase!r}")
    text = phrase.strip()
    if not text:
        raise InputError("a phrase is empty; each must say what to look for")
    start, end = _place(sentence, text, used)
    return Phrase(text, start, end, head=text)


def _place(sentence: str, text: str, used: dict[str, int]) -> tuple[int, int]:
    """Where a text is in the sentence as whole words, else anywhere; -1 and -1 where it is not."""
    key = text.casefold()
    begin = used.get(key, 0)
    escaped = re.escape(text)
    for pattern in (rf"(?<!\w){escaped}(?!\w)", escaped):
        match = re.compile(pattern, re.IGNORECASE).search(sentence, begin)
        if match is not None:
            used[key] = match.end()
            return match.start(), match.end()
    return -1, -1
