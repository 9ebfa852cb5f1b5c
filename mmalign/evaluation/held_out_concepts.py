"""Concepts that captions name, chosen by rule: to take all pictures of one out of a gallery and ask for it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

_WORD = re.compile(r"[a-z]+")
_ARTICLES = frozenset({"a", "an", "the"})
# What follows a noun and hardly an adjective: with an article before it, the word between is a noun.
_AFTER = frozenset({"at", "by", "for", "from", "in", "into", "is", "near", "of", "on", "that", "to", "while", "with"})
# Words that name no visible thing by themselves.
_NO_THINGS = frozenset(
    _WORD.findall(
        "air back background bottom camera couple day distance edge end front group is line lot middle number one "
        "other pair part picture place row scene set side something surface top variety view way"
    )
)
_PLURALS = {
    "children": "child",
    "feet": "foot",
    "men": "man",
    "people": "person",
    "women": "woman",
}


def content_words(caption: str) -> list[str]:
    """The words of a caption, plurals as singulars.

    Args:
        caption: An English sentence.

    Returns:
        Lower-case words in their order.

    Example:
        >>> words_of("Two dogs cross the grass, children watch")
        ['two', 'dog', 'cross', 'the', 'grass', 'child', 'watch']
    """
    return [_singular(word) for word in _WORD.findall(caption.lower())]


def choose_concepts(captions: Sequence[Sequence[str]], *, most: int = 20) -> list[str]:
    """Choose the things that captions name most often.

    A word counts as a thing where it stands between an article and a preposition, a form of `to be` or the end of
    the sentence: `a dog in`, `the beach.`; not where it is followed by another noun: `a black dog`. Words that name
    no visible thing by themselves, such as `side` and `group`, are left out.

    Args:
        captions: The captions of each picture.
        most: How many concepts.

    Returns:
        Singular nouns, the most frequent first, equally frequent ones in the order of the alphabet; fewer where the
        captions name fewer. Those that every picture or only one names are left out: none, or all, of the pictures
        would be left.

    Example:
        >>> choose_concepts([["A dog in the snow."], ["The snow is deep."], ["A man with a dog"], ["A red car"]])
        ['dog', 'snow']
    """
    counts: Counter[str] = Counter()
    for own in captions:
        named = set()
        for caption in own:
            words = content_words(caption)
            for before, word, after in zip(words, words[1:], [*words[2:], ""], strict=False):
                if before in _ARTICLES and (not after or after in _AFTER) and word not in _NO_THINGS | _AFTER:
                    named.add(word)
        counts.update(named)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    mentioning = Counter(
        word for own in captions for word in {word for caption in own for word in content_words(caption)}
    )
    return [word for word in ranked if 1 < mentioning[word] < len(captions)][:most]


def _singular(word: str) -> str:
    if word in _PLURALS:
        return _PLURALS[word]
    if word.endswith(("ss", "us", "is")) or len(word) < 4 or not word.endswith("s"):
        return word
    return word[:-2] if word.endswith(("shes", "ches", "xes", "sses")) else word[:-1]
