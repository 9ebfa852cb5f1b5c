"""Captions as token numbers: a byte-pair vocabulary of lower-case words, trained on captions."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from mmalign.errors import InputError, MissingExtraError

PADDING, BEGIN, END = 0, 1, 2
"""The numbers of the three special tokens."""

_SPECIAL = ("<pad>", "<s>", "</s>")
_WORD = re.compile(r"\w+(?:['\u2019\-]\w+)*")


def plain_words(caption: str) -> str:
    """Reduce a caption to its words: lower case, one space between them, punctuation gone but within words.

    Args:
        caption: Any text.

    Returns:
        The words, perhaps none.

    Example:
        >>> plain_words("A man's  T-shirt , torn .")
        "a man's t-shirt torn"
    """
    text = unicodedata.normalize("NFKC", caption.encode("utf-8", "replace").decode("utf-8")).lower()
    return " ".join(_WORD.findall(text.replace("\u2019", "'")))


class CaptionTokenizer:
    """Byte-pair encoding of `plain_words`; any text has an encoding, since the smallest pieces are bytes.

    Args:
        text: The JSON of a `tokenizers.Tokenizer`, as `to_json` gives it.

    Raises:
        InputError: The text is none.
        MissingExtraError: The package `tokenizers` is not installed.

    Source: Sennrich et al., Neural Machine Translation of Rare Words with Subword Units, 2016.
    """

    def __init__(self, text: str) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise MissingExtraError("the caption decoder", package="tokenizers", extra="lite1") from error
        try:
            self._tokenizer = Tokenizer.from_str(text)
        except Exception as error:  # tokenizers raises bare Exception
            raise InputError(f"expected the JSON of a tokenizer, got {text[:60]!r} ({error})") from error
        found = tuple(self._tokenizer.id_to_token(number) for number in range(len(_SPECIAL)))
        if found != _SPECIAL:
            raise InputError(f"expected a tokenizer that begins with {_SPECIAL}, this one begins with {found}")

    @classmethod
    def train(cls, captions: Iterable[str], *, size: int = 4096) -> CaptionTokenizer:
        """Learn a vocabulary.

        Args:
            captions: Captions in any spelling.
            size: Most tokens, the special ones and 256 bytes included; at least 300.

        Returns:
            The tokenizer.

        Raises:
            InputError: `size` is too small.
        """
        if size < 300:
            raise InputError(f"a vocabulary holds 256 bytes and more: expected a size of at least 300, got {size}")
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=list(_SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            min_frequency=2,
            show_progress=False,
        )
        tokenizer.train_from_iterator((plain_words(caption) for caption in captions), trainer)
        return cls(tokenizer.to_str())

    @property
    def size(self) -> int:
        """Number of tokens."""
        return int(self._tokenizer.get_vocab_size())

    def to_json(self) -> str:
        """The text that makes this tokenizer again."""
        return str(self._tokenizer.to_str())

    def encode(self, captions: Sequence[str], *, longest: int = 64) -> list[list[int]]:
        """Split captions into token numbers, without begin and end.

        Args:
            captions: n captions.
            longest: Tokens beyond this many are cut.

        Returns:
            One list a caption; empty where a caption has no word.
        """
        # The cut in letters keeps a page of text from being tokenized for its first words.
        clean = [plain_words(caption[: 40 * longest]) for caption in captions]
        return [encoding.ids[:longest] for encoding in self._tokenizer.encode_batch(clean)]

    def decode(self, tokens: Sequence[int]) -> str:
        """Join token numbers to words; special tokens are left out."""
        return str(self._tokenizer.decode([number for number in tokens if number >= len(_SPECIAL)])).strip()
