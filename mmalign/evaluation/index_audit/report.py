"""What an audit found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from mmalign.evaluation.index_audit.speed import Speed
from mmalign.evaluation.index_audit.target import Metric
from mmalign.types import Note, gives_json

Verdict: TypeAlias = Literal["kept", "missed", "undecided"]
_COLUMNS = ("filter", "setting", "kind", "recall", "at least", "at most", "target", "median ms", "p95 ms", "batch/s")


@dataclass(frozen=True, slots=True)
class MeasuredRecall:
    """Recall of one kind of query.

    Attributes:
        mean: Mean share of the true k nearest that was found, 0 to 1.
        lower: What the true mean reaches at least, at the report's confidence.
        upper: What it reaches at most, at the same confidence.
        queries: How many queries that is from; none of them has chosen anything.
    """

    mean: float
    lower: float
    upper: float
    queries: int

    def verdict(self, target: float) -> Verdict:
        """Say whether a target is kept, is missed, or cannot be decided with so few queries."""
        return "kept" if self.lower >= target else "missed" if self.upper < target else "undecided"


@dataclass(frozen=True, slots=True)
class MeasuredSetting:
    """One setting of a database, measured.

    Attributes:
        setting: What to set.
        default: Whether that is what the database does when nobody says anything.
        recall: By kind of query.
        speed: How long its searches take.
    """

    setting: Mapping[str, Any]
    default: bool
    recall: Mapping[str, MeasuredRecall]
    speed: Speed

    @property
    def words(self) -> str:
        """The setting for a person."""
        text = ", ".join(f"{name}={value}" for name, value in self.setting.items()) or "nothing to set"
        return f"{text} (as it is)" if self.default and self.setting else text


@dataclass(frozen=True, slots=True)
class FilteredAudit:
    """What was found under one filter, or under none.

    Attributes:
        filter: The filter; empty for none.
        rows: How many rows it lets through.
        share: What share of all rows that is.
        settings: All that was measured, the effort of each search mode rising.
        chosen: The fastest setting of those that keep the target for every kind of query; None where none does.
        plan: How the engine says that it answers, in its own words; empty where it does not tell.
    """

    filter: str
    rows: int
    share: float
    settings: tuple[MeasuredSetting, ...]
    chosen: MeasuredSetting | None
    plan: str = ""

    @property
    def now(self) -> MeasuredSetting:
        """What the database does when nobody says anything."""
        return next(one for one in self.settings if one.default)

    @property
    def best(self) -> MeasuredSetting:
        """What finds most, by the bound of the kind that it finds least of; for where no setting keeps the target."""
        return max(self.settings, key=lambda one: min(found.lower for found in one.recall.values()))


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit found; every bound holds at `confidence`, each by itself.

    Attributes:
        source: What was measured; no passwords.
        engine: Its engine, with the version.
        index: What kind of index it has.
        rows: How many vectors were read and compared with.
        dim: Their width.
        metric: By what the nearest are the nearest.
        k: How many hits were asked for.
        target: The recall that settings were looked for.
        confidence: One-sided, of each bound.
        kinds: By kind of query, how many were asked.
        results: Under no filter, then under each filter.
        exact_ms: What an exact search of one query takes in NumPy, in milliseconds; None where it was not timed.
        notes: What was noticed.
        date: When, UTC, ISO 8601.
    """

    source: str
    engine: str
    index: str
    rows: int
    dim: int
    metric: Metric
    k: int
    target: float
    confidence: float
    kinds: Mapping[str, int]
    results: tuple[FilteredAudit, ...]
    exact_ms: float | None
    notes: tuple[Note, ...]
    date: str

    @gives_json
    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values."""
        told = {name: getattr(self, name) for name in self.__slots__ if name not in ("results", "notes")}
        return {
            **told,
            "results": [_filtered(one, self.target) for one in self.results],
            "notes": [note.to_dict() for note in self.notes],
        }

    def table(self) -> list[list[str]]:
        """Return what a person looks for first: recall as it is, and with what would keep the target.

        Where nothing would, what finds most takes its place.

        Returns:
            Rows of text, the first of them the names of the columns.
        """
        lines = [list(_COLUMNS)]
        for one in self.results:
            lines += _lines(one, one.now, self.target)
            other = one.best if one.chosen is None else one.chosen
            if other != one.now:
                lines += _lines(one, other, self.target)
        return lines

    def every_setting(self) -> list[list[str]]:
        """Return all that was measured; see `table`."""
        return [
            list(_COLUMNS),
            *(line for one in self.results for each in one.settings for line in _lines(one, each, self.target)),
        ]


def _lines(one: FilteredAudit, setting: MeasuredSetting, target: float) -> list[list[str]]:
    speed = setting.speed
    rate = "" if speed.batch_per_s is None else f"{speed.batch_per_s:,.0f}"
    return [
        [
            one.filter or "none",
            setting.words,
            kind,
            f"{found.mean:.3f}",
            f"{found.lower:.3f}",
            f"{found.upper:.3f}",
            found.verdict(target),
            f"{speed.median_ms:.2f}",
            f"{speed.p95_ms:.2f}",
            rate,
        ]
        for kind, found in setting.recall.items()
    ]


def _filtered(one: FilteredAudit, target: float) -> dict[str, Any]:
    return {
        "filter": one.filter,
        "rows": one.rows,
        "share": one.share,
        "now": _setting(one.now, target),
        "chosen": None if one.chosen is None else _setting(one.chosen, target),
        "best": _setting(one.best, target),
        "settings": [_setting(setting, target) for setting in one.settings],
        "plan": one.plan,
    }


def _setting(one: MeasuredSetting, target: float) -> dict[str, Any]:
    return {
        "setting": dict(one.setting),
        "default": one.default,
        "recall": {
            kind: {name: getattr(found, name) for name in found.__slots__} | {"verdict": found.verdict(target)}
            for kind, found in one.recall.items()
        },
        **{name: getattr(one.speed, name) for name in one.speed.__slots__},
    }
