"""Which earlier phrase a pronoun or a repeated mention stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mmalign.alignment import words
from mmalign.alignment.tagging import singular
from mmalign.types import Phrase, Relation

# What says that another one is meant.
_OTHERS = frozenset({"other", "another", "second", "third", "different", "next", "more"})


def with_antecedents(
    phrases: Sequence[Phrase], relations: Sequence[Relation], narrowed: frozenset[int] = frozenset()
) -> tuple[Phrase, ...]:
    """Find what pronouns and repeated mentions stand for.

    A pronoun stands for the nearest earlier phrase of its kind (`he`: a man or a person; `it`: one thing or animal;
    `they`: several), a subject before an object. A phrase with a definite article stands for the nearest earlier one
    with the same noun that has all its modifiers, unless a preposition narrows down both: `the dog on the left sofa
    and the dog on the right one` are two.

    Args:
        phrases: In the order of the sentence.
        relations: Between them.
        narrowed: The phrases that a preposition behind them narrows down.

    Returns:
        The phrases with their `antecedent`, which is never itself a later mention of something.
    """
    found: list[Phrase] = []
    subjects = {relation.subject for relation in relations}
    for i, phrase in enumerate(phrases):
        earlier = _pronoun(phrase, found, subjects)
        if earlier is None and phrase.head.lower() not in words.PRONOUNS:
            earlier = _repeated(i, phrase, found, narrowed)
        if earlier is not None and found[earlier].antecedent is not None:
            earlier = found[earlier].antecedent
        found.append(replace(phrase, antecedent=earlier))
    return tuple(found)


def _pronoun(phrase: Phrase, earlier: Sequence[Phrase], subjects: set[int]) -> int | None:
    wanted = words.PRONOUNS.get(phrase.text.lower())
    if wanted is None:
        return None
    fitting = [i for i, other in enumerate(earlier) if not other.abstract and _fits(other, wanted)]
    # A subject is taken up again rather than what was said of it.
    best = [i for i in fitting if i in subjects] or fitting
    return best[-1] if best else None


def _fits(phrase: Phrase, wanted: str) -> bool:
    head = phrase.head.lower()
    if head in words.PRONOUNS:
        return words.PRONOUNS[head] == wanted
    if wanted == "many":
        return phrase.plural
    if phrase.plural or head in words.CLOTHES & words.COLOURS:
        return False
    person = singular(head) in words.PEOPLE
    if wanted == "thing":
        return not person or head in ("child", "baby", "group", "crowd", "team")
    return person and head not in (words.FEMALE if wanted == "male" else words.MALE)


def _repeated(i: int, phrase: Phrase, earlier: Sequence[Phrase], narrowed: frozenset[int]) -> int | None:
    first = phrase.text.split(None, 1)[0].lower()
    if first not in words.DEFINITE - words.POSSESSIVES or _OTHERS & {*phrase.modifiers} or phrase.abstract:
        return None
    for j in range(len(earlier) - 1, -1, -1):
        other = earlier[j]
        if other.head.lower() != phrase.head.lower() or other.plural != phrase.plural:
            continue
        if {*phrase.modifiers} <= {*other.modifiers} and not (i in narrowed and j in narrowed):
            return j
    return None
