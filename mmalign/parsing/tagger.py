"""Word classes by closed lists, endings and neighbours: as much as it takes to find where noun phrases end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mmalign.parsing import lexicon as words
from mmalign.parsing.relation_words import match_relation

# Letters and digits of any script; apostrophes and hyphens inside a word belong to it.
_TOKEN = re.compile(r"['\u2019][sS]\b|\w+(?:[-\u2010]\w+)*(?:['\u2019](?![sS]\b)\w+)*|[^\w\s]")


@dataclass(slots=True)
class Token:
    """A word or sign of a sentence.

    Attributes:
        text: As written.
        start: Where it begins, in characters.
        end: Where it ends, exclusive.
        tag: `noun`, `adj`, `num`, `det`, `verb`, `aux`, `prep`, `conj`, `adv`, `pron`, `rel`, `poss` or `punct`.
    """

    text: str
    start: int
    end: int
    tag: str = ""

    @property
    def lower(self) -> str:
        """In lower case."""
        return self.text.lower()


def tokenize(sentence: str) -> list[Token]:
    """Split a sentence into words and signs; a possessive `'s` is a word of its own."""
    return [Token(match.group(), match.start(), match.end()) for match in _TOKEN.finditer(sentence)]


def tag(tokens: Sequence[Token]) -> None:
    """Set the tag of every token."""
    lowered = [token.lower for token in tokens]
    fixed = mark_expressions(tokens)
    for i, word in enumerate(lowered):
        if i not in fixed:
            tokens[i].tag = _first_guess(word)
    for i in range(len(tokens)):
        if i not in fixed:
            tokens[i].tag = _in_place(tokens, i)


def mark_expressions(tokens: Sequence[Token]) -> set[int]:
    """Tag expressions of several words, such as `to the left of`, of which no word is part of a noun phrase.

    Args:
        tokens: Of a sentence.

    Returns:
        The positions of their words.
    """
    lowered = [token.lower for token in tokens]
    fixed: set[int] = set()
    i = 0
    while i < len(lowered):
        found = match_relation(lowered, i)
        step = 1
        if found is not None and found[0] > 1:
            step = found[0]
            for j in range(i, i + step):
                # Verbs stay what they are: whose they are depends on it.
                tokens[j].tag = "verb" if j == i and _first_guess(lowered[j]) in ("ing", "ed", "verb") else "prep"
                fixed.add(j)
        elif lowered[i : i + 2] in (["each", "other"], ["one", "another"]) or lowered[i : i + 2] == ["a", "lot"]:
            step = 2
            if lowered[i] != "a" or lowered[i + 2 : i + 3] != ["of"]:
                for j in (i, i + 1):
                    tokens[j].tag = "adv"
                    fixed.add(j)
        i += step
    return fixed


def _first_guess(word: str) -> str:
    """The class of a word by itself; `ing`, `ed`, `verb` and `plain` wait for their neighbours."""
    for known, name in _KNOWN:
        if word in known:
            return name
    if not any(sign.isalnum() for sign in word):
        return "conj" if word == "&" else "punct"
    if word in ("'s", "\u2019s"):
        return "poss"
    if word[0].isdigit():
        return "num"
    if word.endswith("ing") and len(word) > 4 and word not in words.ING_NOUNS:
        return "ing"
    if word.endswith("ed") and len(word) > 4:
        return "ed"
    if word.endswith("ly") and len(word) > 4 and word not in ("family", "butterfly", "belly", "jelly", "fly", "lily"):
        return "adv"
    return "plain"


_KNOWN = (
    (words.DETERMINERS, "det"),
    (words.POSSESSIVES, "det"),
    (words.NUMBERS, "num"),
    (words.AUXILIARIES, "aux"),
    (words.PRONOUNS, "pron"),
    (words.NAMING_PRONOUNS, "noun"),
    (words.RELATIVES, "rel"),
    (words.PREPOSITIONS, "prep"),
    (words.CONJUNCTIONS, "conj"),
    (words.ADVERBS, "adv"),
    (words.VERBS, "verb"),
    (words.PARTICIPLES, "ed"),
    (words.ADJECTIVES, "adj"),
)
# Adverbs and adjectives that are nouns behind "the" or "its".
_ENDS = ("back", "top", "front", "inside", "outside", "bottom", "home")
# Pronouns that something is done to.
_OBJECTS = frozenset("it him them himself herself itself themselves".split())  # noqa: SIM905 - as the other lists
_DESCRIBES = ("able", "ible", "ant", "ous", "ful", "less", "ish", "ic", "ive")
_INSIDE = ("det", "adj", "num", "poss")
_NOMINAL = ("noun", "plain", "adj", "num")


def _in_place(tokens: Sequence[Token], i: int) -> str:
    """The class of a word between its neighbours; those before it have theirs already."""
    word, guess = tokens[i].lower, tokens[i].tag
    before = tokens[i - 1].tag if i else ""
    after = tokens[i + 1].tag if i + 1 < len(tokens) else ""
    ends = after in ("", "punct", "conj", "prep", "aux", "rel", "adv")
    if word == "that":
        return "rel" if before == "noun" or after in ("aux", "verb") else "det"
    if word == "her":
        noun = after in (*_NOMINAL, "ing", "ed", "verb") or (after == "adv" and tokens[i + 1].lower in _ENDS)
        return "det" if noun else "pron"
    if word == "some" and (
        (before == "prep" and after in ("verb", "ing"))
        or (after == "adv" and tokens[i + 2 : i + 3] and tokens[i + 2].tag == "adj")
    ):
        # "in some leaves", "some very strong currents"
        return "det"
    if word == "another" and (ends or (after in ("plain", "verb") and tokens[i + 1].lower.endswith("s"))):
        # "jumps to another", "another follows"
        return "noun"
    if word in ("one", "both", "all", "some", "each") and (ends or after in ("verb", "ing", "det")):
        return "noun" if word in ("one", "some") and after != "det" else "det" if after == "det" else "adv"
    if guess == "det" and word in ("no", "any", "what") and ends:
        return "adv"
    if word in _ENDS and before in ("det", "adj", "poss", "noun"):
        if before == "noun" and word not in ("top", "bottom"):
            return "adv"
        return "adj" if after in ("plain", "noun") else "noun"
    if guess == "adj":
        # "an adult holding a baby"
        ends = ends or (word in words.PEOPLE and after in ("ing", "verb"))
        return "noun" if ends and before in ("det", "adj", "num") and _stands_alone(tokens, i) else "adj"
    if guess == "prep":
        # A particle: "jumps up", "walks around".
        return "adv" if after in ("", "punct", "conj") and word != "of" else "prep"
    if guess == "verb":
        return _verb_or_noun(tokens, i, before, after)
    if guess == "ing" and not _dressed(tokens, i):
        if before in _INSIDE or (
            before in ("prep", "") and after in ("plain", "noun") and tokens[i + 1].lower[-1] == "s"
        ):
            return "adj" if after in (*_NOMINAL, "ed") else "noun" if before in ("det", "poss") else "verb"
        return "verb"
    if guess == "ing":
        return "verb"
    if guess == "ed" and word in words.COMPOUNDED and before == "noun" and after in _NOMINAL:
        # "a snow covered mountain"
        return "adj"
    if guess == "ed":
        if after in (*_NOMINAL, "ing") and before not in ("noun", "aux", "pron"):
            return "adj"
        if before in ("det", "adj"):
            return "adj" if after == "ed" else "noun"
        return "verb"
    if guess != "plain":
        return guess
    if after == "adj" and word.endswith(_DESCRIBES):
        # "an inflatable yellow toy"
        return "adj"
    return "verb" if _unknown_verb(tokens, i, before, after) else "noun"


def _stands_alone(tokens: Sequence[Token], i: int) -> bool:
    """Whether an adjective at the end of a phrase is its noun, as in `the blue square`; not so colours."""
    if tokens[i].lower in words.QUANTIFIERS | words.COLOURS:
        return False
    before = i - 1
    while before >= 0 and tokens[before].tag == "adj":
        before -= 1
    if before >= 0 and tokens[before].tag == "noun":
        # "his mouth wide open"
        return False
    joined = tokens[i + 1 : i + 3]
    return not (len(joined) == 2 and joined[0].lower in (",", "and", "or", "&") and joined[1].tag == "adj")


def _dressed(tokens: Sequence[Token], i: int) -> bool:
    """Whether a colour before a word stands for clothes: `a woman in red rides a horse`."""
    if i < 2 or tokens[i - 1].lower not in words.COLOURS:
        return False
    return tokens[i - 2].tag == "prep" or tokens[i - 2].lower in ("wearing", "wears")


def _verb_or_noun(tokens: Sequence[Token], i: int, before: str, after: str) -> str:
    """A word that is a verb or a noun, such as `run`, `swings`, `faces`."""
    word = tokens[i].lower
    if _dressed(tokens, i) and after in ("det", "prep", "adv", "num"):
        return "verb"
    other = tokens[i - 1].lower == "other" and i > 1 and tokens[i - 2].lower == "the" and word.endswith("s")
    if before in (*_INSIDE, "prep") and not other and not (before == "prep" and tokens[i - 1].lower == "to"):
        return "noun"
    joined = any(token.lower == "and" for token in tokens[max(i - 5, 0) : i])
    if before == "noun" and joined and not word.endswith("s") and _only_verb(tokens, i):
        # "a man and a woman blow bubbles"
        return "verb"
    several = is_plural(tokens[i - 1].lower) or (after in ("prep", "det", "adv") and joined)
    if before == "noun" and word not in words.PAST and not word.endswith("s") and not several:
        # "a cliff face", "a bamboo stick": with a singular noun the verb would end in -s.
        return "noun"
    if other or before in ("noun", "aux", "pron", "rel", "adv") or (before == "prep" and tokens[i - 1].lower == "to"):
        return "verb"
    earlier = any(token.tag == "verb" for token in tokens[:i])
    if before == "conj" and earlier and word.endswith("s") and after in ("plain", "noun"):
        # "sits in a hand and eats seeds": the first of two nouns seldom is plural.
        return "verb"
    return "verb" if earlier and after in ("prep", "det", "adv", "num", "") else "noun"


def _only_verb(tokens: Sequence[Token], i: int) -> bool:
    """Whether no other word can be the verb of the sentence, and one follows that this one could be said of."""
    others = (token.tag or _first_guess(token.lower) for j, token in enumerate(tokens) if j != i)
    return i + 1 < len(tokens) and not any(tag_ in ("verb", "aux", "ing", "ed") for tag_ in others)


def _unknown_verb(tokens: Sequence[Token], i: int, before: str, after: str) -> bool:
    """Whether a word of no list reads as a verb: agreement with the noun before it, and no noun after it."""
    word = tokens[i].lower
    if before == "prep" and tokens[i - 1].lower == "to" and (after == "det" or tokens[i - 2].tag == "verb"):
        return not is_plural(word) and after not in ("noun", "plain")
    object_ = i + 1 < len(tokens) and tokens[i + 1].lower in _OBJECTS
    if before != "noun" or not (after in ("prep", "det", "adv") or object_) or word in words.IRREGULAR_PLURALS:
        return False
    if word.endswith(("ers", "ors", "ists", "ians")) or singular(word) in words.PEOPLE:
        return False
    subject = is_plural(tokens[i - 1].lower)
    verbal = word.endswith("s") and not word.endswith("ss")
    return verbal != subject and (verbal or subject)


def is_plural(noun: str) -> bool:
    """Whether a noun is plural by its form.

    Args:
        noun: In lower case.

    Returns:
        True for `dogs`, `people`; False for `dog`, `grass`, and for what comes in pairs, such as `jeans`.
    """
    if noun in words.IRREGULAR_PLURALS:
        return True
    if noun in words.PAIRED or len(noun) < 4:
        return False
    return noun.endswith("s") and not noun.endswith(("ss", "us", "is", "'s"))


def singular(noun: str) -> str:
    """The singular of a noun, as far as its ending tells.

    Args:
        noun: In lower case.

    Returns:
        `dog` of `dogs`, `person` of `people`; the word itself where it is no plural.
    """
    if noun in words.IRREGULAR_PLURALS:
        return words.IRREGULAR_PLURALS[noun]
    if not is_plural(noun):
        return noun
    if noun.endswith("ies") and len(noun) > 4:
        return noun[:-3] + "y"
    if noun.endswith(("ches", "shes", "xes", "sses", "zes")):
        return noun[:-2]
    return noun[:-1]
