"""Measuring the recall of a database that people have, as mmalign measures that of its own indexes."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.errors import FilterError, InputError
from mmalign.evaluation.index_audit.queries import MADE, given_queries, made_queries
from mmalign.evaluation.index_audit.report import AuditReport, FilteredAudit, MeasuredRecall, MeasuredSetting
from mmalign.evaluation.index_audit.searched import Searched
from mmalign.evaluation.index_audit.spaces import Lengths, Space, look
from mmalign.evaluation.index_audit.speed import time_exact, time_searches
from mmalign.evaluation.index_audit.spool import Spool, spool, temporary_folder
from mmalign.evaluation.index_audit.target import AuditTarget, RowFilter, SearchMode
from mmalign.evaluation.index_audit.targets.opening import Place, open_target
from mmalign.index import Measuring, QuerySet, lower_bound, measure_recall_profile
from mmalign.types import Note, as_path
from mmalign.utils import Float32Array, Int64Array, track


@dataclass(frozen=True, slots=True)
class AuditOptions:
    """How to measure.

    Attributes:
        filters: Filters in the database's own language.
        shares: Shares of the rows that filters at random let through, each above 0 and below 1.
        confidence: Of each bound, one-sided.
        count: How many queries of a kind at most; a quarter of them chooses efforts, the others measure.
        vectors: A file of the vectors as they were before the index compressed them, in rising order of their ids.
        seed: Of what is drawn.
        progress: Whether to show progress bars.
    """

    filters: Sequence[str] = ()
    shares: Sequence[float] = (0.1, 0.01)
    confidence: float = 0.95
    count: int = 440
    vectors: Path | None = None
    seed: int = 0
    progress: bool = True


def audit(
    source: str | Path | AuditTarget,
    *,
    queries: Any = None,
    encoder: Any = None,
    k: int = 10,
    target: float = 0.95,
    place: Place | None = None,
    options: AuditOptions | None = None,
) -> AuditReport:
    """Measure what a database finds of the true nearest, and which setting would find enough.

    All vectors are read once, in batches, into a temporary file, and compared with every query by the database's own
    metric; that is the truth. The database itself is only searched, never written to.

    Args:
        source: A FAISS or hnswlib file, a LanceDB folder, a milvus-lite file, a folder of Qdrant's local mode, a
            `postgresql://` address, the URL of a Milvus or Qdrant server, or an `AuditTarget` of one's own.
        queries: What people will ask: by kind a file of vectors (`.npy`, `.npz`, `.parquet`), a text file with a query
            a line, or vectors of shape (q, dim); or one of these alone. None for queries made from the data alone.
        encoder: Of texts: an encoder or its name; the one that made the vectors of the database.
        k: How many hits; recall@k is measured.
        target: The mean recall that a setting is looked for, above 0 and below 1.
        place: Where in the database the vectors are, where that is not plain; its engine and its metric.
        options: How to measure.

    Returns:
        The report.

    Raises:
        InputError: An argument out of range; too few queries or vectors.
        SourceError: The database cannot be read, or holds nothing like that.
        FilterError: A filter that the database does not understand.
        DimensionError: Queries of another width.
        MissingExtraError: The engine's package is not installed.
        StorageError: No room for the temporary file.

    Example:
        >>> audit("photos.faiss", queries={"words": "words.npy"}).results[0].chosen  # doctest: +SKIP
    """
    options = options or AuditOptions()
    _check(k, target, options)
    rng = np.random.default_rng(options.seed)
    if not isinstance(source, AuditTarget):
        as_path("source", source)
    opened = source if isinstance(source, AuditTarget) else open_target(source, place or Place())
    with closing(opened), temporary_folder() as folder:
        files = {} if queries is None else dict(queries) if isinstance(queries, Mapping) else {"given": queries}
        asked = given_queries(files, encoder=encoder, dim=opened.dim, count=options.count, rng=rng)
        with track("Reading vectors", opened.rows, enabled=options.progress) as advance:
            vectors = spool(opened, Path(folder), originals=options.vectors, advance=advance)
        made = made_queries(vectors, opened.metric, count=options.count, rng=rng)
        if len(made.vectors) > 1:
            asked[MADE] = made
        if not asked or len(vectors) < k:
            raise InputError(f"{opened.name}: {len(vectors)} vectors are too few to measure recall@{k}")
        sample = np.concatenate([one.vectors for one in asked.values()])
        space, lengths = look(opened.metric, lambda: (part for _, part in vectors.chunks()), sample)
        audited = _Audit(opened, vectors, space, asked, k, target, options, rng)
        results = audited.run()
        return AuditReport(
            source=opened.name,
            engine=f"{opened.engine} {opened.version}".strip(),
            index=opened.index,
            rows=len(vectors),
            dim=opened.dim,
            metric=opened.metric,
            k=k,
            target=target,
            confidence=options.confidence,
            kinds={kind: len(one.vectors) for kind, one in asked.items()},
            results=tuple(results),
            exact_ms=time_exact(vectors, space, sample, k),
            notes=(*opened.notes, *_notes(opened, vectors, lengths, asked, options), *audited.notes),
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )


def _check(k: int, target: float, options: AuditOptions) -> None:
    if k < 1 or not 0 < target < 1 or not 0 < options.confidence < 1:
        raise InputError(
            f"expected k of at least 1, target and confidence above 0 and below 1, got k={k}, target={target}, "
            f"confidence={options.confidence}"
        )
    if options.count < 8:
        raise InputError(f"the number of queries must be at least 8, better 400, got {options.count}")
    wrong = [share for share in options.shares if not 0 < share < 1]
    if wrong:
        raise InputError(f"shares of filters must be above 0 and below 1, got {wrong[0]}")


def _notes(
    target: AuditTarget, vectors: Spool, lengths: Lengths, asked: Mapping[str, QuerySet], options: AuditOptions
) -> list[Note]:
    notes = []
    if set(asked) == {MADE}:
        notes.append(
            Note(
                "all queries were made from the data; those of another kind, such as words for pictures, may find less",
                remedy="give some with --queries",
                about="queries",
            )
        )
    if target.metric != "cosine" and not lengths.alike:
        notes.append(
            Note(
                f"vectors are of lengths from {lengths.least:.3g} to {lengths.most:.3g}: the nearest by "
                f"{target.metric}, which the index goes by, are not the nearest by cosine",
                about="metric",
            )
        )
    if lengths.zeros:
        notes.append(Note(f"{lengths.zeros:,} vectors are all zeros", about="vectors"))
    if target.lossy and options.vectors is None:
        notes.append(
            Note(
                "the index keeps compressed vectors alone, and the truth is that of what can be read back: what the "
                "compression itself loses is not counted",
                remedy="give the vectors as they were with --vectors",
                about="vectors",
            )
        )
    if len(vectors) != target.rows:
        notes.append(
            Note(
                f"{target.rows:,} rows were counted and {len(vectors):,} vectors read: some rows were deleted or have "
                "no vector, or it is being written to",
                about="vectors",
            )
        )
    return notes


class _Audit:
    """The measurements of one database."""

    def __init__(
        self,
        target: AuditTarget,
        vectors: Spool,
        space: Space,
        asked: Mapping[str, QuerySet],
        k: int,
        recall: float,
        options: AuditOptions,
        rng: np.random.Generator,
    ) -> None:
        self._target, self._vectors, self._space, self._k = target, vectors, space, k
        self._recall, self._options, self._rng = recall, options, rng
        self._asked = {
            kind: replace(one, vectors=np.ascontiguousarray(space.queries(one.vectors))) for kind, one in asked.items()
        }
        every = np.concatenate([one.vectors for one in asked.values()])
        self._timed: Float32Array = every[np.random.default_rng(options.seed).permutation(len(every))]
        self.notes: list[Note] = []

    def run(self) -> list[FilteredAudit]:
        """Measure without a filter and with each."""
        filters = [None, *self._filters()]
        modes = [self._target.modes(self._k, filtered=one is not None) for one in filters]
        steps = len(self._asked) * sum(len(some) for some in modes)
        with track("Measuring", steps, enabled=self._options.progress) as advance:
            return [self._under(one, some, advance) for one, some in zip(filters, modes, strict=True)]

    def _filters(self) -> list[RowFilter]:
        found = [self._target.filter(text) for text in self._options.filters]
        for share in self._options.shares:
            try:
                found.append(self._target.random_filter(share, self._vectors.map.keys, self._rng))
            except FilterError as error:
                self.notes.append(Note(f"no filter of {share:.2%} at random: {error}", about="filter"))
        kept = []
        for one in found:
            rows = np.count_nonzero(self._vectors.map.positions(one.keys) >= 0)
            if rows < self._k:
                self.notes.append(Note(f"{one.text} lets {rows:,} rows through, fewer than {self._k}", about="filter"))
            else:
                kept.append(one)
        return kept

    def _under(
        self, one: RowFilter | None, modes: Sequence[SearchMode], advance: Callable[[int], None]
    ) -> FilteredAudit:
        if one is None:
            ids = np.arange(len(self._vectors))
        else:
            ids = np.unique(self._vectors.map.positions(one.keys))
            ids = ids[ids >= 0]
        where = None if one is None else one.native
        settings: list[MeasuredSetting] = []
        candidates: list[MeasuredSetting] = []
        for mode in modes:
            measured, chosen = self._in_mode(mode, ids, where, len(modes), default=mode is modes[0], advance=advance)
            settings += measured
            candidates += [] if chosen is None else [chosen]
        plan = self._target.explain(self._timed[0], self._k, modes[0].parameters(modes[0].default), where)
        return FilteredAudit(
            filter="" if one is None else one.text,
            rows=len(ids),
            share=len(ids) / len(self._vectors),
            settings=tuple(settings),
            chosen=min(candidates, key=lambda setting: setting.speed.median_ms, default=None),
            plan=plan,
        )

    def _in_mode(
        self,
        mode: SearchMode,
        ids: Int64Array,
        where: Any,
        modes: int,
        *,
        default: bool,
        advance: Callable[[int], None],
    ) -> tuple[list[MeasuredSetting], MeasuredSetting | None]:
        """Measure one search mode, and choose its least effort that keeps the target."""
        # The fastest of several is taken: each has to be so much surer.
        confidence = 1 - (1 - self._options.confidence) / modes
        values: dict[int, dict[str, NDArray[np.float64]]] = {}

        def record(kind: str, share: float, k: int, effort: int, found: NDArray[np.float64]) -> None:
            values.setdefault(effort, {})[kind] = found

        searched = Searched(self._target, mode, self._space, self._vectors.map, ids, where)
        profile = measure_recall_profile(
            searched,
            lambda: ((at, self._space.vectors(part)) for at, part in self._vectors.chunks()),
            self._asked,
            Measuring(
                ks=(self._k,),
                shares=(1.0,),
                confidence=confidence,
                seed=self._options.seed,
                vectors=lambda at: self._space.vectors(self._vectors.at(at)),
                advance=advance,
                efforts=mode.values,
                always=(mode.default,) if default else (),
                record=record,
            ),
        )
        settings = {
            effort: MeasuredSetting(
                mode.setting(effort),
                default and effort == mode.default,
                {kind: self._bounds(found, confidence) for kind, found in sorted(kinds.items())},
                time_searches(self._target, self._timed, self._k, mode.parameters(effort), where),
            )
            for effort, kinds in sorted(values.items())
        }
        effort = profile.effort_for(self._recall, kinds=None, k=self._k)
        return list(settings.values()), None if effort is None else settings[effort]

    @staticmethod
    def _bounds(found: NDArray[np.float64], confidence: float) -> MeasuredRecall:
        return MeasuredRecall(
            round(float(found.mean()), 6),
            round(lower_bound(found, confidence=confidence), 6),
            round(1 - lower_bound(1 - found, confidence=confidence), 6),
            len(found),
        )
