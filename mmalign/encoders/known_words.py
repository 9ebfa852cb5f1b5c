"""Which words of a text a WordPiece tokenizer can tell apart: emoji, other scripts and nonsense it cannot.

What it does not know becomes `[UNK]`, the same for all, or falls into single letters; the text's embedding then says
nothing about what was meant. Words of other languages in Latin letters fall into pieces as rare English ones do, and
are not noticed.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING

from mmalign.encoders.base import KnownWords

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

# Mean log-probability of a word's letters, below which it is taken for nonsense. Of the 22,016 words of 229,011
# captions, three lie below the first, all of them slips or names ("girsl"), and of words of random letters half.
# Where all words of a text fall to pieces, their mean is compared with the second; no caption lies below that.
_NONSENSE, _ALL_NONSENSE = -4.6, -3.6
# A word in fewer pieces is known well enough, and a shorter one may be an abbreviation.
_PIECES, _LETTERS = 3, 5
_UNKNOWN = "[UNK]"
# Ordinal indicators: letters by their category, of no script.
_OF_NO_SCRIPT = "\u00aa\u00ba"


class WordPieces:
    """Says which words of a text are known.

    Args:
        tokenizer: A BERT tokenizer without truncation.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def knows(self, text: str) -> KnownWords:
        """Say which words of a text the vocabulary can tell from others.

        Args:
            text: The text, as UTF-8 can hold it.

        Returns:
            How many words there are, and those that are unknown. Signs and punctuation count as no words.
        """
        encoding = self._tokenizer.encode(text)
        count, unknown, pieces = 0, [], []
        for start, stop, tokens in _words(encoding):
            word = text[start:stop]
            if _UNKNOWN in tokens:
                known = False
            elif not any(letter.isalnum() for letter in word):
                continue
            elif any(map(_is_foreign, word)):
                # The vocabulary holds single letters of other scripts, and of hardly any word more than these.
                known = len(tokens) == 1 and len(word) > 1
            else:
                worth = self._worth(word.lower()) if len(tokens) >= _PIECES and len(word) >= _LETTERS else 0.0
                pieces.append((word, worth))
                known = worth >= _NONSENSE
            count += 1
            if not known:
                unknown.append(word)
        if len(pieces) > 1 and len(pieces) + len(unknown) >= count and all(worth < 0 for _, worth in pieces):
            mean = sum(worth for _, worth in pieces) / len(pieces)
            if mean < _ALL_NONSENSE:
                unknown += [word for word, worth in pieces if worth >= _NONSENSE]
        return KnownWords(count, tuple(dict.fromkeys(unknown)), nothing=len(unknown) >= count)

    def _worth(self, word: str) -> float:
        """Mean log-probability of each letter of a word after the two before it, in nats; 0 where it is not in a-z."""
        if not (word.isascii() and word.isalpha()):
            return 0.0
        threes, twos = self._letters
        spelt = f"^{word}$"
        chances = ((threes[spelt[i : i + 3]] + 0.1) / (twos[spelt[i : i + 2]] + 2.6) for i in range(len(spelt) - 2))
        return math.fsum(map(math.log, chances)) / (len(spelt) - 2)

    @cached_property
    def _letters(self) -> tuple[Counter[str], Counter[str]]:
        """How often three letters, and two, follow one another in the whole words of the vocabulary."""
        threes: Counter[str] = Counter()
        twos: Counter[str] = Counter()
        for word in self._tokenizer.get_vocab():
            if len(word) > 2 and word.isascii() and word.isalpha() and word.islower():
                spelt = f"^{word}$"
                threes.update(spelt[i : i + 3] for i in range(len(spelt) - 2))
                twos.update(spelt[i : i + 2] for i in range(len(spelt) - 2))
        return threes, twos


def _words(encoding: Encoding) -> Iterable[tuple[int, int, list[str]]]:
    """Where each word begins and ends in the text, and its tokens."""
    found: dict[int, tuple[int, int, list[str]]] = {}
    for word, (start, stop), token in zip(encoding.word_ids, encoding.offsets, encoding.tokens, strict=True):
        if word is None:
            continue
        if word in found:
            first, _, tokens = found[word]
            found[word] = first, stop, [*tokens, token]
        else:
            found[word] = start, stop, [token]
    return found.values()


def _is_foreign(letter: str) -> bool:
    """Whether a character is a letter of another script than the Latin one."""
    if letter.isascii() or letter in _OF_NO_SCRIPT or not letter.isalpha():
        return False
    return "LATIN" not in unicodedata.name(letter, "")
