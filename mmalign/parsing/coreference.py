"""Which earlier phrase a pronoun or a repeated mention stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mmalign.parsing import lexicon as words
from mmalign.parsing.tagger import singular
from mmalign.types import Phrase, Relation

# What says that another one is meant.
_OTHERS = frozenset({"other", "another", "second", "third", "different", "next", "more"})


def with_antecedents(
    phrases: Sequence[Phrase], relations: Sequence[Relation], narrowed: frozenset[int] = frozenset()
) -> tuple[tuple[Phrase, ...], tuple[Relation, ...]]:
    """Find what pronouns and repeated mentions stand for.

    A pronoun stands for the nearest earlier phrase of its kind (`he`: a man or a person; `it`: one thing or animal;
    `they`: several), a subject before an object. A phrase with a definite article stands for the nearest earlier one
    with the same noun that has all its modifiers, unless a preposition narrows down both: `the dog on the left sofa
    and the dog on the right one` are two. What stands in a relation is not what it is related to: `the green square
    above the green square` are two, and in `a shirt with a sign on it` the shirt is meant; only `himself` and the like
    stand for their own subject.

    Args:
        phrases: In the order of the sentence.
        relations: Between them.
        narrowed: The phrases that a preposition behind them narrows down.

    Returns:
        The phrases with their `antecedent`, which is never itself a later mention of something; and the relations
        but for those that would hold between mentions of one thing.
    """
    found: list[Phrase] = []
    subjects = {relation.subject for relation in relations}
    related = _related(relations)
    for i, phrase in enumerate(phrases):
        others = {_thing(found, j) for j in related.get(i, ()) if j < i}
        if phrase.head.lower() in words.PRONOUNS:
            earlier = _pronoun(phrase, found, subjects, others)
        else:
            earlier = _repeated(i, phrase, found, narrowed, others)
        found.append(replace(phrase, antecedent=None if earlier is None else _thing(found, earlier)))
    # Mentions that come later may join what a relation keeps apart, as a pronoun with nothing else to stand for does.
    kept = (
        relation
        for relation in relations
        if _thing(found, relation.subject) not in {_thing(found, j) for j in relation.objects}
    )
    return tuple(found), tuple(kept)


def _related(relations: Sequence[Relation]) -> dict[int, set[int]]:
    """For each phrase, those that it stands in a relation with, as subject or object."""
    related: dict[int, set[int]] = {}
    for relation in relations:
        for j in relation.objects:
            related.setdefault(relation.subject, set()).add(j)
            related.setdefault(j, set()).add(relation.subject)
    return related


def _thing(phrases: Sequence[Phrase], i: int) -> int:
    """The first mention of what a phrase names."""
    earlier = phrases[i].antecedent
    return i if earlier is None else earlier


def _pronoun(phrase: Phrase, earlier: Sequence[Phrase], subjects: set[int], others: set[int]) -> int | None:
    word = phrase.text.lower()
    wanted = words.PRONOUNS.get(word)
    if wanted is None:
        return None
    fitting = [i for i, other in enumerate(earlier) if not other.abstract and _fits(other, wanted)]
    if not word.endswith(("self", "selves")):
        # Where nothing else fits, the relation was read wrongly rather than the pronoun stands for nothing.
        fitting = [i for i in fitting if _thing(earlier, i) not in others] or fitting
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


def _repeated(
    i: int, phrase: Phrase, earlier: Sequence[Phrase], narrowed: frozenset[int], others: set[int]
) -> int | None:
    first = phrase.text.split(None, 1)[0].lower()
    if first not in words.DEFINITE - words.POSSESSIVES or _OTHERS & {*phrase.modifiers} or phrase.abstract:
        return None
    for j in range(len(earlier) - 1, -1, -1):
        other = earlier[j]
        if other.head.lower() != phrase.head.lower() or other.plural != phrase.plural or _thing(earlier, j) in others:
            continue
        if {*phrase.modifiers} <= {*other.modifiers} and not (i in narrowed and j in narrowed):
            return j
    return None
