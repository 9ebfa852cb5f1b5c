"""Building the index of a table of vectors, keeping it up to date and purging it: of the items, or of a view's rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import ArrayLike

from mmalign.collection.eval_queries import EvalQueries
from mmalign.collection.maintenance import IndexState, MaintenanceAction, choose_action, extend
from mmalign.collection.recall import measure_recall, needs_remeasure, target_recall
from mmalign.errors import IndexFileError, InputError, RecipeError
from mmalign.index import (
    Device,
    Index,
    IndexManifest,
    Meter,
    Recipe,
    build_index,
    check_any_length,
    check_memory,
    choose,
    chooses_exact,
    installed_budget,
    lifecycle,
    load_recipe,
)
from mmalign.search import Searcher
from mmalign.store import Store
from mmalign.types import check_share
from mmalign.utils import Float32Array, as_matrix, track

# Text queries that an index learns from, where it does.
_SAMPLE = 1000


class SampleQueries(Protocol):
    """Gathers queries that stand for those that will be asked of a table; as `sample_eval_queries`."""

    def __call__(
        self,
        store: Store,
        given: Float32Array | None = None,
        *,
        sample: int = 0,
        seed: int = 0,
        progress: bool = True,
    ) -> EvalQueries:
        """Gather them."""
        ...


class IndexBuilder:
    """Builds and keeps the index of one table.

    Args:
        root: The folder of the index's versions.
        table: Opens the table for writing, a handle of its own each time.
        dim: Width of a vector.
        fingerprint: The encoder's, or None for vectors from elsewhere.
        queries: Gathers what recall is measured with.
        unit_length: Whether the vectors are of length 1; else of any length.

    Attributes:
        root: As given.
    """

    def __init__(
        self,
        root: Path,
        table: Callable[[], Store],
        *,
        dim: int,
        fingerprint: str | None,
        queries: SampleQueries,
        unit_length: bool = True,
    ) -> None:
        self.root = root
        self._table = table
        self._dim = dim
        self._fingerprint = fingerprint
        self._queries = queries
        self._unit_length = unit_length

    def build(
        self,
        recipe: str,
        *,
        min_recall: float = 0.95,
        queries: ArrayLike | None = None,
        memory: int | None = None,
        device: Device = "cpu",
        progress: bool = True,
    ) -> IndexManifest | None:
        """Build an index over all rows, measure its recall and put it in use; as `Collection.build_index`."""
        check_share("min_recall", min_recall)
        given = None if queries is None else as_matrix(queries, dim=self._dim, name="queries")
        if given is not None and len(given) < 2:
            raise InputError(f"recall needs at least 2 queries to be measured with, better 400, got {len(given)}")
        store = self._table()
        rows, dim = len(store), self._dim
        budget = replace(
            installed_budget(),
            memory=memory,
            device=device,
            min_recall=max(min_recall, 0.01),
            queries_known=given is not None or self._fingerprint is not None,
        )
        if recipe == "auto" and chooses_exact(rows, dim, budget):
            lifecycle.withdraw(self.root)
            return None
        design = choose(rows, dim, budget).recipe if recipe == "auto" else load_recipe(recipe)
        if not self._unit_length:
            check_any_length(design)
        check_memory(design, rows=rows, dim=dim, memory=memory)
        with store.reads_long(), self._workspace(design, store) as (items, folder):
            place = {"workspace": folder, "memory": memory, "device": device}
            return self._build_from(
                items, design, asked=recipe, given=given, min_recall=min_recall, progress=progress, place=place
            )

    @contextmanager
    def _workspace(self, design: Recipe, store: Store) -> Iterator[tuple[Store, Path | None]]:
        """The rows to build from, and the folder in which an index is built on disk.

        Where an earlier process died over the same design, that is the version of the table that it had begun with.
        """
        if design.storage != "disk":
            yield store, None
            return
        what = f"{design} {self._fingerprint}"
        usable = lambda version: store.at(version) is not None  # noqa: E731
        with lifecycle.claim_workspace(self.root, what, version=store.version, usable=usable) as work:
            yield store.at(work.version) or store, work.folder

    def _build_from(
        self,
        store: Store,
        design: Recipe,
        *,
        asked: str,
        given: Float32Array | None,
        min_recall: float,
        progress: bool,
        place: Mapping[str, Any],
    ) -> IndexManifest:
        rows, version, dim = len(store), store.version, self._dim
        held = None
        if design.query_aware:
            held = self._queries(store, given, sample=_SAMPLE, progress=progress)
        meter = Meter(design, rows=rows, dim=dim, threads=installed_budget().threads)
        with track("Indexing", rows, enabled=progress) as advance:
            index, used = build_index(
                design,
                store.iter_embeddings,
                rows=rows,
                dim=dim,
                queries=None if held is None else held.sample,
                advance=advance,
                **place,
            )
        taken = meter.taken()
        if held is None:
            # What compares with every vector needs no measuring, and so no encoder.
            held = EvalQueries() if index.exhaustive else self._queries(store, given, progress=progress)
        profile = measure_recall(
            store, index, held, min_recall=min_recall, unit_length=self._unit_length, progress=progress
        )
        manifest = IndexManifest(
            recipe=used,
            asked=asked,
            factory=index.factory,
            dim=dim,
            rows=len(index),
            trained_rows=len(index),
            dataset_version=version,
            fingerprint=self._fingerprint,
            # With too few rows for a design, an exact index is built instead.
            estimate=meter.estimated if index.factory == design.resolve(rows=rows, dim=dim) else {},
            taken=taken,
            contract=profile.to_dict(),
            dataset=self._table().mark(),
            ef_construction=None if index.factory == "exact" else design.ef_construction,
        )
        published = lifecycle.publish(self.root, index, manifest)
        lifecycle.clean(self.root)
        self._table().compact()
        return published

    def rebuild(self, manifest: IndexManifest, *, progress: bool = True) -> None:
        """Build the design of index that was in use again; none is in use where too few rows are left for it.

        Args:
            manifest: Of the index that was in use.
            progress: Whether to show progress bars.

        Raises:
            As `build`, but for a design that cannot be trained on so few.
        """
        try:
            self.build(manifest.asked or manifest.recipe, min_recall=target_recall(manifest), progress=progress)
        except RecipeError:
            # Nobody has asked for this design now, and so few are searched exactly in no time.
            lifecycle.withdraw(self.root)

    def action(self, searcher: Searcher) -> MaintenanceAction:
        """Say what is to be done with the index in use; see `mmalign.collection.maintenance`.

        Args:
            searcher: The table with the index in use.

        Returns:
            `keep`, `extend` or `build`.
        """
        index, manifest = searcher.index, searcher.manifest
        if index is None or manifest is None:
            return "build"
        unindexed = len(searcher.unindexed)
        state = IndexState(
            items=searcher.items,
            unindexed=unindexed,
            stale=searcher.uncovered - unindexed,
            positions=len(index.ids),
            trained_rows=manifest.trained_rows or manifest.rows,
        )
        return choose_action(state)[0]

    def extend(self, *, progress: bool = True) -> IndexManifest:
        """Take into the index in use what it lacks, without training it again.

        Recall is measured again where the rows have grown or drifted since it was.

        Args:
            progress: Whether to show progress bars.

        Returns:
            The manifest of the new version.

        Raises:
            IndexFileError: No index is in use, or it is damaged or of other rows.
            StorageError: The disk refused; the index in use stays.
        """
        store = self._table()
        manifest = lifecycle.read_manifest(self.root)

        def measure(index: Index) -> Mapping[str, Any]:
            held = EvalQueries() if index.exhaustive else self._queries(store, progress=progress)
            least = target_recall(manifest)
            return measure_recall(
                store, index, held, min_recall=least, unit_length=self._unit_length, progress=progress
            ).to_dict()

        again = measure if needs_remeasure(store, manifest) else None
        with store.reads_long():
            published = extend(self.root, store, measure=again, progress=progress)
        store.compact()
        return published

    def due(self, searcher: Callable[[], Searcher], recipe: str = "auto") -> MaintenanceAction:
        """Say what is to be done with the index.

        Args:
            searcher: Gives the table with the index in use.
            recipe: The design that is asked for; `auto` keeps to the one in use.

        Returns:
            As `action`; `keep` where there is no index, none is asked for, and none would gain anything.
        """
        try:
            manifest = lifecycle.read_manifest(self.root)
        except IndexFileError:
            return "build"
        if recipe != "auto" and manifest is None:
            return "build"
        if manifest is not None and manifest.asked != _wanted(manifest, recipe):
            return "build"
        found = searcher()
        if manifest is None and (not found.items or chooses_exact(found.items, self._dim, installed_budget())):
            return "keep"
        return self.action(found)

    def refresh(self, action: MaintenanceAction, recipe: str = "auto", *, progress: bool = True) -> None:
        """Do what `due` says.

        Args:
            action: That.
            recipe: As for `due`.
            progress: Whether to show progress bars.

        Raises:
            As `build`.
        """
        try:
            manifest = lifecycle.read_manifest(self.root)
        except IndexFileError:
            manifest = None
        if action == "extend":
            try:
                self.extend(progress=progress)
            except IndexFileError:
                # Damaged, which only reading all of it has shown.
                action = "build"
        if action == "build":
            self.build(_wanted(manifest, recipe), min_recall=target_recall(manifest), progress=progress)

    def purge(self, searcher: Callable[[], Searcher]) -> None:
        """Leave no byte of removed rows in any version of the index; the one in use is built again where it has some.

        Args:
            searcher: Gives the table with the index in use.

        Raises:
            As `build`.
        """
        try:
            manifest = lifecycle.read_manifest(self.root)
            found = searcher()
            held = found.index is None or found.uncovered > len(found.unindexed)
        except IndexFileError:
            manifest, held = None, False
        if manifest is None:
            # None is in use, or one that nobody can read.
            lifecycle.withdraw(self.root)
        elif held:
            self.rebuild(manifest)
        lifecycle.clean(self.root, keep=1)


def _wanted(manifest: IndexManifest | None, recipe: str) -> str:
    """The design to build: what is asked for now, else what was asked for when the index in use was built."""
    return recipe if manifest is None or recipe != "auto" else manifest.asked or manifest.recipe
