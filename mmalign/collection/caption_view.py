"""The view of the items by their captions: what it is made of, and what the recall of its index is measured with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mmalign.collection.description import CollectionManifest
from mmalign.collection.eval_queries import EvalQueries, sample_eval_queries
from mmalign.collection.query_log import LoggedQueries
from mmalign.collection.view_refresh import CAPTIONS, ViewPlace, ViewSpec
from mmalign.collection.view_table import captions_of
from mmalign.collection.views import View
from mmalign.encoders import Encoder
from mmalign.index import QuerySet
from mmalign.store import Store
from mmalign.utils import Float32Array


def captions_spec(data: Path, description: CollectionManifest, encoder: Callable[[], Encoder]) -> ViewSpec:
    """Say what the view of a generation's captions is made of.

    Args:
        data: The folder that holds its items, or will.
        description: What it is made with.
        encoder: Gives the encoder.
    """
    place = ViewPlace.of(data, CAPTIONS, format=description.format)
    return ViewSpec(CAPTIONS, place, captions_of, encoder, description.dim)


def captions_view(
    data: Path,
    description: CollectionManifest,
    encoder: Callable[[], Encoder],
    items: Callable[[], Store],
    logged: Callable[[], LoggedQueries],
) -> View:
    """Make the view of a generation's captions.

    Args:
        data: The folder that holds its items.
        description: What it is made with.
        encoder: Gives the encoder.
        items: Gives the items at their newest version.
        logged: Gives the queries that were really asked, where some are kept.
    """

    def queries(
        store: Store,
        given: Float32Array | None = None,
        *,
        sample: int = 0,
        seed: int = 0,
        progress: bool = True,
    ) -> EvalQueries:
        # Other words than the captions, which would find themselves; and pictures.
        held = sample_eval_queries(
            items(), encoder, given=given, sample=sample, seed=seed, captions=False, progress=progress
        )
        # They are of items, none of which is a row of the captions.
        return replace(held, asked={kind: QuerySet(one.vectors) for kind, one in held.asked.items()})

    spec = captions_spec(data, description, encoder)
    return View(spec, fingerprint=description.fingerprint, queries=queries, logged=logged)
