"""The recall of the indexes that people have: `mmalign audit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmalign.cli.output import JsonOption, print_fact, print_json, print_table, say, shows_progress

if TYPE_CHECKING:
    from mmalign.evaluation import AuditReport, MeasuredSetting

_COLUMN = 12


def audit(
    source: Annotated[
        str,
        typer.Argument(
            help="A FAISS or hnswlib file, a LanceDB folder, a milvus-lite file, a folder of Qdrant's local mode, "
            "postgresql://user@host/name, or the URL of a Milvus or Qdrant server."
        ),
    ],
    queries: Annotated[
        list[str] | None,
        typer.Option(
            "--queries",
            "-q",
            help="What people will ask: vectors (.npy, .npz, .parquet) or a text file with a query a line, as PATH or "
            "KIND=PATH; PATH alone names the kind by the file. Repeat it for several.",
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option("--encoder", "-e", help="Encodes texts: the one that made the vectors, such as lite."),
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", help="How many hits.")] = 10,
    target: Annotated[float, typer.Option(help="The recall that a setting is looked for.")] = 0.95,
    confidence: Annotated[float, typer.Option(help="How sure each bound is, one-sided.")] = 0.95,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            help="Measure under a filter in the database's own language, such as 'price < 10'; for Qdrant, JSON. "
            "Repeat it for several.",
        ),
    ] = None,
    share: Annotated[
        list[float] | None,
        typer.Option(
            help="Measure under a filter that lets this share of the rows through, at random; 0 for none such. Repeat "
            "it for several. Default: 0.1 and 0.01."
        ),
    ] = None,
    table: Annotated[str | None, typer.Option(help="The table or collection, where there are several.")] = None,
    column: Annotated[
        str | None, typer.Option(help="The column, field or named vector, where there are several.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="cosine, ip or l2, where the database does not say: an hnswlib file.")
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="faiss, hnswlib, lancedb, milvus, pgvector or qdrant, where SOURCE does not tell."),
    ] = None,
    vectors: Annotated[
        Path | None,
        typer.Option(
            help="The vectors as they were before the index compressed them, in rising order of their ids: what the "
            "compression loses then counts."
        ),
    ] = None,
    count: Annotated[int, typer.Option(help="How many queries of a kind at most.")] = 440,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    settings: Annotated[
        bool, typer.Option("--settings", help="Print every setting that was measured, not only the ones that matter.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure what an index that you have finds of the true nearest, and which setting finds enough.

    All vectors are read once and compared with every query by the database's own metric: that is the truth. Recall@k is
    the share of the true k nearest that the database finds as it is now, and at every step of its own knob (nprobe,
    efSearch, hnsw.ef_search ...), with bounds; then the fastest setting that keeps --target. The database is only read.

    For example:

        mmalign audit photos.faiss --queries words.npy

        mmalign audit postgresql:///shop --table items --queries asked.txt --encoder lite --filter "price < 10"

        mmalign audit graph.bin --metric cosine --target 0.99

    Passwords come from the address or from PGPASSWORD, MILVUS_TOKEN and QDRANT_API_KEY, and are not printed.
    """
    from mmalign.evaluation import AuditOptions, Place
    from mmalign.evaluation import audit as measure

    options = AuditOptions(
        filters=tuple(filters or ()),
        shares=AuditOptions().shares if share is None else tuple(one for one in share if one),
        confidence=confidence,
        count=count,
        vectors=vectors,
        seed=seed,
        progress=shows_progress(as_json),
    )
    report = measure(
        source,
        queries=_named(queries or []),
        encoder=encoder,
        k=k,
        target=target,
        place=Place(engine=engine, table=table, column=column, metric=metric),
        options=options,
    )
    if as_json:
        print_json(report.to_dict())
        return
    _print(report, every=settings)


def _named(words: list[str]) -> dict[str, str]:
    """Queries by kind: what stands before the sign of equality, else the name of the file."""
    from mmalign.errors import InputError

    named: dict[str, str] = {}
    for word in words:
        kind, sign, path = word.partition("=")
        if not sign or Path(word).exists():
            kind, path = Path(word).stem, word
        if kind in named:
            raise InputError(f"two files of queries are called {kind!r}; name them: --queries KIND=PATH")
        named[kind] = path
    return named


def _print(report: AuditReport, *, every: bool) -> None:
    asked = ", ".join(f"{count:,} {kind}" for kind, count in report.kinds.items())
    for name, value in (
        ("database", f"{report.source} ({report.engine})"),
        ("index", report.index),
        ("truth", f"exact, over all {report.rows:,} vectors of width {report.dim}, by {report.metric}"),
        ("queries", f"{asked}; a quarter of each chooses settings, the others measure"),
        ("bounds", f"each holds with {report.confidence:.0%} confidence"),
    ):
        print_fact(name, value, column=_COLUMN)
    if report.exact_ms is not None:
        print_fact("beside it", f"an exact search in NumPy takes {report.exact_ms:.2f} ms a query", column=_COLUMN)
    print()
    header, *rows = report.every_setting() if every else report.table()
    print_table([name.replace("recall", f"recall@{report.k}") for name in header], rows, wraps=1)
    print()
    for one in report.results:
        under = f"under {one.filter}" if one.filter else "without a filter"
        print_fact(
            "set" if one.chosen else "no setting",
            f"{under} ({one.rows:,} rows): "
            + (
                f"{one.chosen.words} keeps recall@{report.k} of {report.target:g} for every kind of query, "
                f"{one.chosen.speed.median_ms:.2f} ms instead of {one.now.speed.median_ms:.2f}"
                if one.chosen
                else f"none that was tried is sure to keep recall@{report.k} of {report.target:g}; most is found by "
                f"{one.best.words}{_undecided(one.best, report.target)}"
            ),
            column=_COLUMN,
        )
    for note in report.notes:
        say(f"note: {note}")


def _undecided(setting: MeasuredSetting, target: float) -> str:
    """What to do where so few queries cannot tell."""
    told = {found.verdict(target) for found in setting.recall.values()}
    return ", which may keep it: ask more queries (--count)" if "undecided" in told and "missed" not in told else ""
