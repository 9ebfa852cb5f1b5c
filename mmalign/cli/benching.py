"""The benchmarks as commands: `mmalign bench ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmalign.cli.output import Group, JsonOption, print_json, print_table, say, say_skipped, shows_progress

app = typer.Typer(cls=Group, no_args_is_help=True, help="Measure how fast and how exact a search is on your own data.")


@app.command("index")
def bench_index(
    source: Annotated[Path, typer.Argument(help="A collection, or vectors in a .npy, .npz or .parquet file.")],
    recipe: Annotated[
        list[str] | None,
        typer.Option(
            help="What to measure: names from `mmalign recipes`, recipe files or FAISS factory strings. Repeat it for "
            "several. Default: every recipe for a processor."
        ),
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(
            help="Vectors to ask with, a file like SOURCE; of those beyond --count up to 1,000 are for designs that "
            "learn from queries. Default: captions of the collection, else vectors taken out."
        ),
    ] = None,
    k: Annotated[int, typer.Option(help="How many neighbours.")] = 10,
    count: Annotated[int, typer.Option("--count", help="How many queries at most.")] = 1000,
    out: Annotated[Path, typer.Option(help="Folder for figures and plot.")] = Path("mmalign-bench"),
    build_only: Annotated[
        bool, typer.Option("--build-only", help="Build the indexes and time nothing; the same call without it does.")
    ] = False,
    write: Annotated[
        bool, typer.Option("--write", help="Write the figures into indexes/*.toml too; for a checkout of mmalign.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure index designs: recall, queries a second, milliseconds, time to build, and size.

    What was measured is kept; a call that was stopped goes on where it was.

    For example:

        mmalign bench index photos.mm --recipe hnsw --recipe SQ8
    """
    from mmalign.evaluation import BenchOptions, bench_indexes, open_bench_source
    from mmalign.index import list_recipes

    names = recipe or [one.name for one in list_recipes() if one.device == "cpu"]
    opened = open_bench_source(source, queries=queries, count=count)
    options = BenchOptions(k=k, build_only=build_only, write=write, progress=shows_progress(as_json))
    tables, skipped = bench_indexes(opened, names, out, options)
    plot = _plot(tables, out)
    nothing = len(skipped) == len(set(names))
    if as_json:
        print_json(
            {
                "measured": tables,
                "skipped": [{"recipe": one.uri, "reason": one.reason} for one in skipped],
                "plot": None if plot is None else str(plot),
            }
        )
        if nothing:
            raise typer.Exit(1)
        return
    say_skipped(skipped)
    if nothing:
        say("error: no design that was asked for could be built")
        raise typer.Exit(1)
    if build_only:
        say(f"built in {out}; the same call without --build-only measures")
        return
    print(opened.name)
    print_table(
        ["recipe", "effort", f"recall@{k}", "1 at a time/s", "batch/s", "p50 ms", "p99 ms", "bytes/vector", "build s"],
        [
            [
                table["recipe"],
                "" if effort == 0 else str(effort),
                f"{table['recall'][i]:.4f}",
                f"{table['qps_single'][i]:,.0f}",
                f"{table['qps_batch'][i]:,.0f}",
                f"{table['p50_ms'][i]:.2f}",
                f"{table['p99_ms'][i]:.2f}",
                f"{table['bytes_per_vector']:,.0f}",
                f"{table['build_seconds']:,.1f}",
            ]
            for table in tables
            for i, effort in enumerate(table["efforts"])
        ],
    )
    say(f"figures in {out}" + ("" if plot is None else f", plot in {plot}"))


def _plot(tables: list[dict[str, object]], out: Path) -> Path | None:
    from mmalign.errors import MissingExtraError
    from mmalign.evaluation import draw_recall_speed

    if not tables:
        return None
    path = out / "recall-speed.png"
    try:
        draw_recall_speed(tables, path)
    except MissingExtraError as error:
        say(f"no plot: {error}")
        return None
    return path
