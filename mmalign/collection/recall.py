"""The recall that a collection's index promises: what it is measured with, and whether it still holds.

Text queries lie apart from the pictures' embeddings, so an index that finds the neighbours of pictures may miss those
of words. It is therefore measured with queries of the kinds that will be asked.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mmalign.collection.eval_queries import EvalQueries, unit_embeddings
from mmalign.errors import DimensionError, IndexFileError
from mmalign.index import (
    Index,
    IndexManifest,
    Mask,
    Measuring,
    RecallCurve,
    RecallProfile,
    compare_vectors,
    describe_vectors,
    measure_recall_profile,
)
from mmalign.store import Store
from mmalign.types import Note
from mmalign.utils import Float32Array, Int64Array, track

_DRIFT_SAMPLE = 2000
_MIN_RECALL = 0.95
# Growth since recall was measured from which on it is measured again when the index is extended.
_MEASURE_SHARE = 0.1
# Drift is looked for once the index lacks or holds in vain this share of the items, and told of growth beyond that one.
_LOOK_SHARE, _GROWTH_SHARE = 0.05, 0.5
_REMEDY = "mmalign doctor measures the recall again, mmalign index --rebuild builds the index again"


def measure_recall(
    store: Store,
    index: Index,
    queries: EvalQueries,
    *,
    min_recall: float,
    where: Mask | None = None,
    seed: int = 0,
    unit_length: bool = True,
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
        unit_length: Whether embeddings are of length 1; else they are of any length.
        progress: Whether to show a progress bar.

    Returns:
        The profile, its notes saying for which kinds of query `min_recall` takes exact search.

    Raises:
        InputError: A single query of a kind.
        DimensionError: The caller's own queries have another width.
    """
    options = Measuring(seed=seed, where=where, vectors=lambda rows: store.embeddings(rows)[1], unit_length=unit_length)
    needed = 0 if index.exhaustive else options.steps(index.ntotal, len(queries.asked))
    with track("Measuring recall", needed, enabled=progress and needed > 0) as advance:
        measured = measure_recall_profile(
            index, store.iter_embeddings, queries.asked, replace(options, advance=advance)
        )
    rng = np.random.default_rng(seed)
    sample = _sample(store, rng.permutation(store.row_ids())[:_DRIFT_SAMPLE], unit_length=unit_length)
    drift = {"rows": len(store), "version": store.version, **describe_vectors(sample)}
    notes = (*queries.notes, *shortfall_notes(measured, min_recall))
    return replace(measured, min_recall=min_recall, drift=drift, notes=notes, logged=queries.logged)


def _sample(store: Store, rows: Int64Array, *, unit_length: bool) -> Float32Array:
    """Embeddings to look for drift in; where lengths count, these may drift as well."""
    if unit_length or not len(rows):
        return unit_embeddings(store, rows)
    return store.embeddings(rows)[1].astype(np.float32)


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
        if curve is None or profile.effort_for(min_recall, kinds=(kind,), k=curve.k) is not None:
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
        effort = profile.effort_for(min_recall, kinds=(kind,), k=curve.k)
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
        drift = compare_vectors(profile.drift, _sample(store, chosen, unit_length=profile.unit_length))
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
