"""Queries that stand for those that people will ask, of every kind, to measure an index with.

What people type differs from what describes pictures: one word, a few words, a word that no caption holds, a sentence
of another language, a sum or a difference. To find the neighbours of each of these takes another effort, so that each
kind is measured by itself.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from mmalign.collection.sample_queries import synthetic_queries
from mmalign.encoders import Encoder, encode_query
from mmalign.errors import MMAlignError
from mmalign.index import QuerySet, exact_truth
from mmalign.media import Picture, is_url, load_pictures
from mmalign.search import Query
from mmalign.store import Store
from mmalign.types import Note
from mmalign.utils import Float32Array, Int64Array, l2_normalize, track

# Queries of each kind: a quarter chooses, the others measure. Fewer than 299 of these could not prove a recall of 0.99.
_QUERIES = 440
# Sentences that are composed to choose from.
_COMPOSED = 4_000
# Fewer captioned items than this are no picture of what will be asked.
_CAPTIONED = 50
# Fewer pictures than this that can be read tell nothing of parts of them.
_CROPPED = 50
# A part of a picture has at least this share of its width, and of its height.
_LEAST_SIDE = 0.4
_CROPS_AT_ONCE = 32
# Rows whose distance to their nearest neighbour says how far apart two pictures of the like are.
_NEIGHBOURS = 64
# Words at which a phrase neither begins nor ends.
_FUNCTION_WORDS = {
    *("a", "an", "and", "are", "as", "at", "by", "for", "from", "his", "her", "in", "into", "is", "it", "its"),
    *("of", "on", "or", "the", "their", "to", "while", "with"),
}
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class EvalQueries:
    """Queries that stand for those that will be asked.

    Attributes:
        asked: By kind, the queries to measure with.
        sample: Text queries to build with, shape (m, dim); none of them is measured with. None without text.
        notes: Remarks for the person who builds the index.
        logged: By kind, how many of `asked` were really asked; kinds of which none was left out.
    """

    asked: dict[str, QuerySet] = field(default_factory=dict)
    sample: Float32Array | None = None
    notes: tuple[Note, ...] = ()
    logged: Mapping[str, int] = field(default_factory=dict)


def sample_eval_queries(
    store: Store,
    encoder: Callable[[], Encoder] | None,
    *,
    given: Float32Array | None = None,
    sample: int = 0,
    seed: int = 0,
    captions: bool = True,
    unit_length: bool = True,
    progress: bool = True,
) -> EvalQueries:
    """Gather queries of the kinds that will be asked; see `mmalign.search.query.kinds`.

    Sentences: captions of items drawn at random, one of each item; where too few items have captions, composed ones.
    Short ones: composed, and beginnings of captions.
    Phrases and words: of these sentences, and words that hardly any caption holds. Other languages and nonsense. Sums
    and differences of all these and of pictures. Pictures: items drawn at random, each moved towards another one until
    it is as far from where it was as items are from their nearest neighbours, so that it stands for another picture of
    the like; the item itself is not looked for. Crops: parts of items drawn at random, of those whose files are there.

    Args:
        store: The items.
        encoder: Gives the encoder; None for a collection without one.
        given: Queries of the caller's own, shape (q, dim); measured beside the others.
        sample: How many more text queries to gather for the building of an index that learns from them.
        seed: Of what is drawn.
        captions: Whether captions stand for words; where captions are what is searched, they would find themselves.
        unit_length: Whether embeddings are of length 1. Queries are in any case, as their neighbours do not depend on
            their length.
        progress: Whether to show a progress bar.

    Returns:
        The queries; without words where the encoder cannot be loaded, which `notes` says.

    Raises:
        InputError: `given` is not finite.
        DimensionError: `given` has another width.
    """
    rng = np.random.default_rng(seed)
    asked: dict[str, QuerySet] = {}
    extra: Float32Array | None = None
    notes: tuple[Note, ...] = ()
    if given is not None:
        asked["given"] = QuerySet(l2_normalize(given))
    pictures = _pictures(store, rng, unit_length=unit_length)
    if len(pictures.vectors) > 1:
        asked["image"] = pictures
    if encoder is not None:
        try:
            loaded = encoder()
            crops = _crops(store, loaded, rng, progress=progress)
            if len(crops.vectors) >= _CROPPED:
                asked["crop"] = crops
            if "text" in loaded.modalities:
                texts = _texts(_sentences(store, _QUERIES + sample, rng, captions=captions), sample, rng)
                embedded = _encode(loaded, texts, progress=progress)
                extra = embedded.pop("sample")
                asked |= {kind: QuerySet(vectors) for kind, vectors in embedded.items()}
                asked |= _composed(embedded, pictures, rng)
        except MMAlignError as error:
            notes = (
                Note(
                    f"recall of text queries was not measured, so they are answered exactly: {error}",
                    remedy="once the encoder can be loaded, build the index again: Collection.build_index()",
                    about="recall",
                ),
            )
    return EvalQueries(asked, extra if extra is not None and len(extra) else None, notes)


def unit_embeddings(store: Store, rows: Int64Array) -> Float32Array:
    """Read embeddings, scaled to length 1.

    Args:
        store: The items.
        rows: Row ids, int64 of shape (n,).

    Returns:
        float32 of shape (n, dim), rows of length 1.
    """
    if not len(rows):
        return np.zeros((0, store.dim), np.float32)
    return l2_normalize(store.embeddings(rows)[1].astype(np.float32))


def _sentences(store: Store, count: int, rng: np.random.Generator, *, captions: bool) -> list[str]:
    some = "captions IS NOT NULL AND array_length(captions) > 0"
    rows = store.row_ids(also=some) if captions else np.zeros(0, np.int64)
    chosen = rng.permutation(rows)[:count] if len(rows) >= _CAPTIONED else rows[:0]
    lists = store.take(chosen, ["captions"]).column("captions").to_pylist() if len(chosen) else []
    texts = list(dict.fromkeys(some_of[int(rng.integers(len(some_of)))] for some_of in lists))
    if len(texts) < count:
        composed = synthetic_queries(count - len(texts), seed=int(rng.integers(1 << 31)))
        # Both kinds on each side of every cut.
        texts = [texts[i] if i < len(texts) else composed[i - len(texts)] for i in rng.permutation(count)]
    return texts


def _texts(sentences: Sequence[str], sample: int, rng: np.random.Generator) -> dict[str, list[str]]:
    """Texts of each kind, and those to build with, which are sentences."""
    held = sentences[: len(sentences) - sample] if sample else sentences
    composed = synthetic_queries(_COMPOSED, seed=1)
    split = [re.findall(r"[^\W\d_]+", text.lower()) for text in (*held, *composed[:_QUERIES])]
    words = sorted({word for one in split for word in one if len(word) > 2 and word not in _FUNCTION_WORDS})
    rare = [word for word in _word_list()["english"].split() if word not in words]
    pairs = [f"{words[i]} {words[j]}" for i, j in rng.integers(len(words), size=(_QUERIES, 2))]
    lists = (words, rare)
    keywords = [
        " ".join(str(rng.choice(lists[int(rng.integers(2))])) for _ in range(int(rng.integers(4, 8))))
        for _ in range(_QUERIES)
    ]
    return {
        "sample": list(sentences[len(held) :]),
        # Captions first; where these are too few, what was composed.
        "sentence": _of_kind("sentence", (*held, *composed))[:_QUERIES],
        "short": _some(_of_kind("short", (*composed, *_beginnings(held))), rng),
        "keywords": keywords,
        "phrase": _some([*dict.fromkeys([*_phrases(split, rng), *pairs])], rng),
        "word": _some(words, rng),
        "rare": _some(rare, rng),
        "foreign": _some(_foreign(rng), rng),
    }


def _of_kind(kind: str, texts: Sequence[str]) -> list[str]:
    """The texts that are asked as such, each once."""
    return [text for text in dict.fromkeys(texts) if kind in Query(text, allow_media=False).kinds]


def _beginnings(sentences: Sequence[str]) -> list[str]:
    """The first four to six words of sentences, whose last one is none that needs another."""
    found = []
    for text in sentences:
        words = text.split()[:6]
        while words and words[-1].lower() in _FUNCTION_WORDS:
            words.pop()
        found.append(" ".join(words))
    return found


def _some(texts: Sequence[str], rng: np.random.Generator) -> list[str]:
    return [texts[i] for i in rng.permutation(len(texts))[:_QUERIES]]


@cache
def _word_list() -> dict[str, Any]:
    return tomllib.loads(resources.files("mmalign.collection").joinpath("query_words.toml").read_text(encoding="utf-8"))


def _phrases(split: Sequence[Sequence[str]], rng: np.random.Generator) -> list[str]:
    """Two or three words that follow one another in a sentence, without function words at the ends."""
    found = []
    for words in split:
        length = int(rng.integers(2, 4))
        parts = [words[i : i + length] for i in range(len(words) - length + 1)]
        good = [part for part in parts if not {part[0], part[-1]} & _FUNCTION_WORDS]
        if good:
            found.append(" ".join(good[int(rng.integers(len(good)))]))
    return found


def _foreign(rng: np.random.Generator) -> list[str]:
    """Words and sentences of other languages, words put together, and letters that mean nothing."""
    listed = _word_list()
    languages = [words.split() for words in listed["languages"].values()]
    together = [
        " ".join(rng.choice(languages[i % len(languages)], int(rng.integers(2, 5)), replace=False)) for i in range(120)
    ]
    nonsense = [
        " ".join("".join(rng.choice(list(_LETTERS), int(rng.integers(3, 11)))) for _ in range(1 + i % 4 // 3 * 2))
        for i in range(160)
    ]
    return [
        *(word for words in languages for word in words),
        *listed["sentences"].strip().splitlines(),
        *together,
        *nonsense,
    ]


def _encode(encoder: Encoder, texts: Mapping[str, Sequence[str]], *, progress: bool) -> dict[str, Float32Array]:
    batch = 64
    every = [text for some in texts.values() for text in some]
    # Texts of one length go through the encoder together, which then need not fill up the shorter ones.
    order = sorted(range(len(every)), key=lambda place: len(every[place]))
    vectors: Float32Array | None = None
    with track("Encoding queries", len(every), enabled=progress) as advance:
        for start in range(0, len(every), batch):
            places = order[start : start + batch]
            found = np.asarray(encode_query(encoder, [every[place] for place in places]), np.float32)
            if vectors is None:
                vectors = np.empty((len(every), found.shape[1]), np.float32)
            vectors[places] = found
            advance(len(places))
    stops = np.cumsum([len(some) for some in texts.values()])
    assert vectors is not None
    return {kind: vectors[stop - len(texts[kind]) : stop] for kind, stop in zip(texts, stops, strict=True)}


def _composed(texts: Mapping[str, Float32Array], pictures: QuerySet, rng: np.random.Generator) -> dict[str, QuerySet]:
    """Sums and differences: of two texts, and for one in four of a picture and a text."""
    pool = np.concatenate([texts[kind] for kind in ("sentence", "phrase", "word", "rare")])
    count = min(_QUERIES, len(pool) // 2)
    seen = min(count // 4, len(pictures.vectors))
    made = {}
    for kind, sign in (("sum", 1.0), ("difference", -1.0)):
        first, second = rng.permutation(len(pool))[: 2 * count].reshape(2, count)
        one, two = pool[first], pool[second]
        own = np.full(count, -1, np.int64)
        if seen:
            some = rng.permutation(len(pictures.vectors))[:seen]
            one[:seen] = pictures.vectors[some]
            own[:seen] = pictures.own[some] if pictures.own is not None else -1
        vectors = one + np.float32(sign) * two
        # Two texts that an encoder does not tell apart leave nothing.
        good = np.linalg.norm(vectors, axis=1) > 1e-3
        order = rng.permutation(np.flatnonzero(good))
        if len(order) > 1:
            made[kind] = QuerySet(l2_normalize(vectors[order]), own[order])
    return made


def _crops(store: Store, encoder: Encoder, rng: np.random.Generator, *, progress: bool) -> QuerySet:
    """Parts of pictures, encoded; of those alone whose files are on this machine and can be read."""
    seen = "image" in encoder.modalities
    rows = store.row_ids(also="kind = 'image' AND uri IS NOT NULL") if seen else np.zeros(0, np.int64)
    chosen = np.sort(rng.permutation(rows)[:_QUERIES])
    uris = store.take(chosen, ["uri"]).column("uri").to_pylist() if len(chosen) else []
    uris = [uri for uri in uris if not is_url(uri)]
    sides = rng.uniform(_LEAST_SIDE, 1.0, (len(uris), 2))
    corners = rng.random((len(uris), 2))
    parts, vectors = [], []
    with track("Encoding crops", len(uris), enabled=progress and bool(uris)) as advance:
        for side, corner, read in zip(sides, corners, load_pictures(uris), strict=False):
            if isinstance(read, Picture) and read.image is not None:
                size = np.array(read.image.size)
                start = np.floor(corner * (1 - side) * size)
                stop = np.maximum(np.ceil(start + side * size), start + 1)
                parts.append(read.image.crop((*start.astype(int).tolist(), *stop.astype(int).tolist())))
            if len(parts) == _CROPS_AT_ONCE:
                vectors.append(encoder.encode_image(parts))
                parts = []
            advance(1)
    if parts:
        vectors.append(encoder.encode_image(parts))
    return QuerySet(l2_normalize(np.concatenate(vectors)) if vectors else np.zeros((0, store.dim), np.float32))


def _pictures(store: Store, rng: np.random.Generator, *, unit_length: bool) -> QuerySet:
    rows = store.row_ids()
    own = rng.permutation(rows)[: min(_QUERIES, len(rows) // 2)]
    vectors = unit_embeddings(store, own)
    if not len(own):
        return QuerySet(vectors, own)
    few = slice(0, _NEIGHBOURS)
    chunks = store.iter_embeddings if unit_length else lambda: _directions(store)
    nearest = exact_truth(vectors[few], chunks, 1, skip=own[few]).scores
    cosine = float(np.clip(np.median(nearest), 0.5, 0.98))
    others = unit_embeddings(store, rng.choice(rows, len(own)))
    # The part of another item that this one has not: of the data's own directions, which noise is not.
    apart = l2_normalize(others - (others * vectors).sum(axis=1, keepdims=True) * vectors)
    return QuerySet(l2_normalize(cosine * vectors + np.sqrt(1 - cosine**2) * apart), own)


def _directions(store: Store) -> Iterator[tuple[Int64Array, Float32Array]]:
    """All embeddings in chunks, scaled to length 1."""
    for rows, vectors in store.iter_embeddings():
        yield rows, l2_normalize(vectors.astype(np.float32))
