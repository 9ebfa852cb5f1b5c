"""The recall that a collection's index promises: what it is measured with, and whether it still holds.

Text queries lie apart from the pictures' embeddings, so an index that finds the neighbours of pictures may miss those
of words. It is therefore measured with queries of the kinds that will be asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mmalign.collection.sample_queries import synthetic_queries
from mmalign.encoders import Encoder, encode_query
from mmalign.errors import DimensionError, IndexFileError, MMAlignError
from mmalign.index import (
    Index,
    IndexManifest,
    Mask,
    Measuring,
    QuerySet,
    RecallCurve,
    RecallProfile,
    compare_vectors,
    describe_vectors,
    exact_truth,
    measure_recall_profile,
)
from mmalign.store import Store
from mmalign.types import Note
from mmalign.utils import Float32Array, Int64Array, l2_normalize, track

# Queries of each kind: a quarter chooses, the others measure. Fewer than 299 of these could not prove a recall of 0.99.
_QUERIES = 440
# Fewer captioned items than this are no picture of what will be asked.
_CAPTIONED = 50
# Rows whose distance to their nearest neighbour says how far apart two pictures of the like are.
_NEIGHBOURS = 64
_DRIFT_SAMPLE = 2000
_MIN_RECALL = 0.95
# Growth since recall was measured from which on it is measured again when the index is extended.
_MEASURE_SHARE = 0.1
# Drift is looked for once the index lacks or holds in vain this share of the items, and told of growth beyond that one.
_LOOK_SHARE, _GROWTH_SHARE = 0.05, 0.5
_REMEDY = "mmalign doctor measures the recall again, mmalign index SOURCE rebuilds the index"


@dataclass(frozen=True, slots=True)
class EvalQueries:
    """Queries that stand for those that will be asked.

    Attributes:
        asked: By kind, the queries to measure with.
        sample: Text queries to build with, shape (m, dim); none of them is measured with. None without text.
        notes: Remarks for the person who builds the index.
    """

    asked: dict[str, QuerySet] = field(default_factory=dict)
    sample: Float32Array | None = None
    notes: tuple[Note, ...] = ()


def sample_eval_queries(
    store: Store,
    encoder: Callable[[], Encoder] | None,
    *,
    given: Float32Array | None = None,
    sample: int = 0,
    seed: int = 0,
    captions: bool = True,
    progress: bool = True,
) -> EvalQueries:
    """Gather queries of the kinds that will be asked.

    Words: captions of items drawn at random, one of each item; where too few items have captions, the bank of
    queries. Pictures: items drawn at random, each moved towards another one until it is as far from where it was as
    items are from their nearest neighbours, so that it stands for another picture of the like; the item itself is not
    looked for.

    Args:
        store: The items.
        encoder: Gives the encoder; None for a collection without one.
        given: Queries of the caller's own, shape (q, dim); measured beside the others.
        sample: How many more text queries to gather for the building of an index that learns from them.
        seed: Of what is drawn.
        captions: Whether captions stand for words; where captions are what is searched, they would find themselves.
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
    if encoder is not None:
        try:
            loaded = encoder()
            if "text" in loaded.modalities:
                texts = _texts(store, _QUERIES + sample, rng, captions=captions)
                vectors = _encode(loaded, texts, progress=progress)
                asked["text"], extra = QuerySet(vectors[:_QUERIES]), vectors[_QUERIES:]
        except MMAlignError as error:
            notes = (
                Note(
                    f"recall of text queries was not measured, so they are answered exactly: {error}",
                    remedy="once the encoder can be loaded, build the index again: Collection.build_index()",
                    about="recall",
                ),
            )
    pictures = _pictures(store, rng)
    if len(pictures.vectors) > 1:
        asked["image"] = pictures
    return EvalQueries(asked, extra if extra is not None and len(extra) else None, notes)


def _texts(store: Store, count: int, rng: np.random.Generator, *, captions: bool) -> list[str]:
    some = "captions IS NOT NULL AND array_length(captions) > 0"
    rows = store.row_ids(also=some) if captions else np.zeros(0, np.int64)
    chosen = rng.permutation(rows)[:count] if len(rows) >= _CAPTIONED else rows[:0]
    listed = store.take(chosen, ["captions"]).column("captions").to_pylist() if len(chosen) else []
    texts = list(dict.fromkeys(some_of[int(rng.integers(len(some_of)))] for some_of in listed))
    if len(texts) < count:
        composed = synthetic_queries(count - len(texts), seed=int(rng.integers(1 << 31)))
        # Both kinds on each side of every cut.
        texts = [texts[i] if i < len(texts) else composed[i - len(texts)] for i in rng.permutation(count)]
    return texts


def _encode(encoder: Encoder, texts: Sequence[str], *, progress: bool) -> Float32Array:
    batch = 64
    parts = []
    with track("Encoding queries", len(texts), enabled=progress) as advance:
        for start in range(0, len(texts), batch):
            parts.append(np.asarray(encode_query(encoder, texts[start : start + batch]), np.float32))
            advance(min(batch, len(texts) - start))
    return np.concatenate(parts)


def _pictures(store: Store, rng: np.random.Generator) -> QuerySet:
    rows = store.row_ids()
    own = rng.permutation(rows)[: min(_QUERIES, len(rows) // 2)]
    vectors = _vectors(store, own)
    if not len(own):
        return QuerySet(vectors, own)
    few = slice(0, _NEIGHBOURS)
    nearest = exact_truth(vectors[few], store.iter_embeddings, 1, skip=own[few]).scores
    cosine = float(np.clip(np.median(nearest), 0.5, 0.98))
    others = _vectors(store, rng.choice(rows, len(own)))
    # The part of another item that this one has not: of the data's own directions, which noise is not.
    apart = l2_normalize(others - (others * vectors).sum(axis=1, keepdims=True) * vectors)
    return QuerySet(l2_normalize(cosine * vectors + np.sqrt(1 - cosine**2) * apart), own)


def _vectors(store: Store, rows: Int64Array) -> Float32Array:
    if not len(rows):
        return np.zeros((0, store.dim), np.float32)
    return l2_normalize(store.embeddings(rows)[1].astype(np.float32))


def measure_recall(
    store: Store,
    index: Index,
    queries: EvalQueries,
    *,
    min_recall: float,
    where: Mask | None = None,
    seed: int = 0,
    progress: bool = True,
) -> RecallProfile:
    """Measure an index of a collection.

    Args:
        store: The items, at the version that the index covers.
        index: The index.
        queries: What to measure with.
        min_recall: What the index is meant to keep.
        where: Rows of the index that can be found at all, a mask over its positions; None for all.
        seed: Of what is drawn.
        progress: Whether to show a progress bar.

    Returns:
        The profile, its notes saying for which kinds of query `min_recall` takes exact search.

    Raises:
        InputError: A single query of a kind.
        DimensionError: The caller's own queries have another width.
    """
    options = Measuring(seed=seed, where=where, vectors=lambda rows: store.embeddings(rows)[1])
    needed = 0 if index.exhaustive else options.steps(index.ntotal, len(queries.asked))
    with track("Measuring recall", needed, enabled=progress and needed > 0) as advance:
        measured = measure_recall_profile(
            index, store.iter_embeddings, queries.asked, replace(options, advance=advance)
        )
    rng = np.random.default_rng(seed)
    sample = _vectors(store, rng.permutation(store.row_ids())[:_DRIFT_SAMPLE])
    drift = {"rows": len(store), "version": store.version, **describe_vectors(sample)}
    notes = (*queries.notes, *shortfall_notes(measured, min_recall))
    return replace(measured, min_recall=min_recall, drift=drift, notes=notes)


def shortfall_notes(profile: RecallProfile, min_recall: float) -> list[Note]:
    """Say for which kinds of query even the largest effort does not keep a promise.

    Args:
        profile: What was measured.
        min_recall: The promise.

    Returns:
        A sentence a kind, about ten hits of an unfiltered search, or as near to that as was measured.
    """
    notes = []
    for kind in profile.kinds:
        curve = _main_curve(profile, kind)
        if curve is None or curve.effort_for(min_recall) is not None:
            continue
        notes.append(
            Note(
                f"{kind} queries: recall@{curve.k} of {min_recall:g} cannot be promised, since the most effort "
                f"reaches {curve.recall[-1]:.3f} (at least {curve.lower[-1]:.3f} with {profile.confidence:.0%} "
                "confidence); they are answered exactly",
                remedy="where that is too slow, choose another recipe: mmalign index SOURCE --recipe NAME",
                about="recall",
            )
        )
    return notes


def profile_of(manifest: IndexManifest | None) -> RecallProfile | None:
    """Read what was measured of an index.

    Args:
        manifest: The index's manifest, or None.

    Returns:
        The profile; None where nothing was measured, or it cannot be read, so that nothing is promised.
    """
    try:
        return None if manifest is None else RecallProfile.from_dict(manifest.contract)
    except IndexFileError:
        return None


def target_recall(manifest: IndexManifest | None) -> float:
    """Return the recall that an index was built to keep, for the one that takes its place.

    Args:
        manifest: The manifest of the index in use, or None.

    Returns:
        The recall, 0 to 1; 0.95 where none was named.
    """
    profile = profile_of(manifest)
    return _MIN_RECALL if profile is None or profile.min_recall is None else profile.min_recall


def recall_summary(profile: RecallProfile | None) -> dict[str, dict[str, Any]]:
    """Sum up what was measured, for a person: ten hits of unfiltered searches, or as near to that as was measured.

    Args:
        profile: What was measured, or None.

    Returns:
        By kind of query: `k`; `min_recall`, what is promised; `effort` that keeps it, None where only exact search
        does; and of that effort, or else of the largest, `recall`, and `lower`, its bound.
    """
    summary: dict[str, dict[str, Any]] = {}
    for kind in profile.kinds if profile is not None else ():
        assert profile is not None
        curve = _main_curve(profile, kind)
        if curve is None:
            continue
        min_recall = _MIN_RECALL if profile.min_recall is None else profile.min_recall
        effort = curve.effort_for(min_recall)
        at = -1 if effort is None else curve.efforts.index(effort)
        summary[kind] = {"k": curve.k, "min_recall": min_recall, "effort": effort}
        summary[kind] |= {"recall": curve.recall[at], "lower": curve.lower[at]}
    return summary


def _main_curve(profile: RecallProfile, kind: str) -> RecallCurve | None:
    curves = [curve for curve in profile.curves if curve.kind == kind and curve.share == 1]
    return min(curves, key=lambda curve: abs(curve.k - 10), default=None)


def needs_remeasure(store: Store, manifest: IndexManifest | None) -> bool:
    """Say whether recall should be measured again once the index takes in what is new.

    Args:
        store: The items.
        manifest: The manifest of the index in use, or None.

    Returns:
        True where a tenth of the items are newer than what was measured, or those that are new have drifted; False
        where nothing was measured.
    """
    profile = profile_of(manifest)
    if profile is None or not profile.curves:
        return False
    measured = int(profile.drift.get("rows", 0))
    return len(store) > (1 + _MEASURE_SHARE) * measured or bool(drift_notes(store, manifest))


def drift_notes(store: Store, manifest: IndexManifest | None, unindexed: Int64Array | None = None) -> list[Note]:
    """Say whether the recall that was measured may no longer hold, since the items have changed.

    Args:
        store: The items.
        manifest: The manifest of the index in use, or None.
        unindexed: Row ids of the items that the index does not cover, where that is known.

    Returns:
        A sentence where there is something to say.
    """
    profile, items = profile_of(manifest), len(store)
    if profile is None or manifest is None or not profile.curves:
        return []
    since = int(profile.drift.get("version", manifest.dataset_version))
    added = unindexed if unindexed is not None and since == manifest.dataset_version else store.row_ids(since=since)
    if len(added) < _LOOK_SHARE * max(items, 1):
        return []
    chosen = np.random.default_rng(0).permutation(added)[:_DRIFT_SAMPLE]
    try:
        drift = compare_vectors(profile.drift, _vectors(store, chosen))
    except (IndexFileError, DimensionError) as error:
        return [Note(str(error), about="drift")]
    so_many = f"{len(added):,} of {items:,} items are newer than the measured recall"
    if drift.drifted:
        unlike = (
            f"{so_many}, and unlike the others (mean moved by {drift.shift:.2f} standard deviations, spread times "
            f"{drift.spread:.2f})"
        )
        return [Note(unlike, remedy=_REMEDY, about="drift")]
    return [Note(so_many, remedy=_REMEDY, about="drift")] if len(added) > _GROWTH_SHARE * items else []
