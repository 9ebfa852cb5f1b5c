"""What sentences say of places: each expression, who it is said of, and what it is not said of."""

from __future__ import annotations

import itertools

import pytest

from mmalign.matching.spatial import KINDS as KNOWN
from mmalign.parsing.phrases import parse_sentence
from mmalign.parsing.relation_words import KINDS, SPATIAL, match_relation


def relations(sentence: str, parser: str = "rules") -> list[tuple[str, str, tuple[str, ...]]]:
    """Heads of subjects and objects."""
    found = parse_sentence(sentence, parser=parser)
    heads = [phrase.head for phrase in found.phrases]
    return [(heads[one.subject], one.kind, tuple(heads[j] for j in one.objects)) for one in found.relations]


def test_every_kind_is_one_that_boxes_can_bear_out() -> None:
    assert {kind for kind in KINDS.values() if kind} == {*KNOWN}
    assert {*KNOWN} > SPATIAL


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        ("left of", "left of"),
        ("to the left of", "left of"),
        ("on the left side of", "left of"),
        ("to the right of", "right of"),
        ("on the right of", "right of"),
        ("above", "above"),
        ("below", "below"),
        ("under", "below"),
        ("beneath", "below"),
        ("on", "on"),
        ("on top of", "on"),
        ("in", "in"),
        ("inside", "in"),
        ("near", "near"),
        ("next to", "near"),
        ("beside", "near"),
        ("in front of", "near"),
        ("behind", "near"),
        ("holding", "holding"),
        ("carrying", "holding"),
        ("bigger than", "bigger"),
        ("larger than", "bigger"),
        ("smaller than", "smaller"),
        ("with", "with"),
    ],
)
def test_expressions(parser: str, expression: str, kind: str) -> None:
    assert relations(f"a cat {expression} a box", parser) == [("cat", kind, ("box",))]
    verb = "" if kind == "holding" else "which is "
    assert relations(f"a small dog {verb}{expression} the red box", parser) == [("dog", kind, ("box",))]


@pytest.mark.parametrize(
    ("sentence", "wanted"),
    [
        ("a cat between a dog and a bird", [("cat", "between", ("dog", "bird"))]),
        ("a ball between two dogs", [("ball", "near", ("dogs",))]),
        ("a man wearing a hat", [("man", "wearing", ("hat",))]),
        ("a man in a red shirt", [("man", "wearing", ("shirt",))]),
        ("a man in a red boat", [("man", "in", ("boat",))]),
        ("a woman dressed in a blue dress", [("woman", "wearing", ("dress",))]),
        # What a verb says is said of the subject, whatever came between.
        (
            "A man in a red shirt is sitting on a bench .",
            [("man", "wearing", ("shirt",)), ("man", "on", ("bench",))],
        ),
        # A preposition behind a garment is said of who wears it.
        ("a man in a hat on a bench", [("man", "wearing", ("hat",)), ("man", "on", ("bench",))]),
        ("A man and a woman sit on a bench", [("man", "on", ("bench",)), ("woman", "on", ("bench",))]),
        ("A man wearing a hat and sunglasses", [("man", "wearing", ("hat",)), ("man", "wearing", ("sunglasses",))]),
        (
            "a man who is holding a ball sits on a chair",
            [("man", "holding", ("ball",)), ("man", "on", ("chair",))],
        ),
        ("The dog is bigger than the cat.", [("dog", "bigger", ("cat",))]),
        (
            "the red circle left of the blue square, and the red circle above the green triangle",
            [("circle", "left of", ("square",)), ("circle", "above", ("triangle",))],
        ),
        (
            "The square is below the circle and to the right of the triangle",
            [("square", "below", ("circle",)), ("square", "right of", ("triangle",))],
        ),
        (
            "A man is standing next to a woman wearing a hat",
            [("man", "near", ("woman",)), ("woman", "wearing", ("hat",))],
        ),
        ("In the snow, two dogs chase a ball.", [("dogs", "in", ("snow",)), ("dogs", "with", ("ball",))]),
        ("A dog sleeps. A cat is on a mat.", [("cat", "on", ("mat",))]),
        ("a dog and a cat", []),
        ("a dog", []),
    ],
)
def test_who_is_meant(parser: str, sentence: str, wanted: list[tuple[str, str, tuple[str, ...]]]) -> None:
    assert relations(sentence, parser) == wanted


def test_templates_come_back_as_they_were_made(parser: str) -> None:
    """Sentences made from known relations, of which each must be found and no other."""
    names = ["dog", "bicycle", "circle", "woman", "tree"]
    words = {
        "left of": "to the left of",
        "right of": "right of",
        "above": "above",
        "below": "below",
        "bigger": "bigger than",
    }
    for (subject, other), (kind, said) in itertools.product(itertools.permutations(names, 2), words.items()):
        for sentence in (f"a {subject} {said} a {other}", f"The red {subject} is {said} the small {other}."):
            assert relations(sentence, parser) == [(subject, kind, (other,))], sentence


def test_the_longest_expression_counts() -> None:
    assert match_relation(["to", "the", "left", "of", "a", "dog"], 0) == (4, "left of")
    assert match_relation(["on", "top", "of", "a", "dog"], 0) == (3, "on")
    assert match_relation(["on", "a", "dog"], 0) == (1, "on")
    assert match_relation(["a", "dog"], 0) is None
    assert match_relation([], 0) is None


def test_words_that_say_it_are_told(parser: str) -> None:
    found = parse_sentence("A man is sitting next to a dog", parser=parser)
    assert found.relations[0].text in ("sitting next to", "next to")
