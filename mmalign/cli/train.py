"""Training as commands: `mmalign train ...`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmalign.cli.output import JsonOption, print_json, say
from mmalign.errors import TrainingInterrupted

if TYPE_CHECKING:
    from mmalign.training.pictures import Progress

app = typer.Typer(no_args_is_help=True, help="Train an encoder on your own pictures and captions.")


@app.callback()
def _train() -> None:
    """Keep `train contrastive` a command of two words while it is the only one."""


@app.command("contrastive")
def train_contrastive(
    config: Annotated[Path, typer.Option(help="A TOML file: what to train, on what, how; see docs/training.md.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, log.jsonl and the exported weights.")],
    manifest: Annotated[
        Path | None,
        typer.Option(help='Stands for data.manifest: a .jsonl file of {"image", "captions", "split"}.'),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for frozen features, which runs may share. Default: OUT/cache.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ... Default: CUDA where there is one.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train an encoder to bring pictures and their captions together.

    Run it again with the same --out: a run that was stopped goes on where it was.

    For example:

        mmalign train contrastive --config lite.toml --out runs/first
    """
    from mmalign.training import run
    from mmalign.training.config import read_config

    with _bars(enabled=not as_json) as progress:
        try:
            report = run.train_contrastive(
                read_config(config, manifest=manifest),
                out,
                cache=cache,
                device=device,
                progress=progress,
                log=None if as_json else _print_record,
            )
        except TrainingInterrupted as stop:
            say(str(stop))
            raise typer.Exit(130) from None
    if as_json:
        print_json(report.to_dict())
        return
    for skipped in report.data.get("skipped", ()):
        say(f"skipped {skipped}")
    print(f"best epoch: {report.best['epoch']} of {report.epochs}, sum of recalls {report.best['sum']:.1f}")
    print(f"weights: {report.exported}")


def _print_record(record: Mapping[str, Any]) -> None:
    if record.get("event") != "epoch":
        say(f"{record['event']}: {', '.join(f'{n} {v}' for n, v in record['data'].items() if n != 'skipped')}")
        return
    recalls = "   ".join(f"{name} {record[name]:.2f}" for name in record if "@" in name)
    # A run of no epochs has learnt nothing, and so has no loss.
    loss = f"loss {record['loss']:.4f}   " if "loss" in record else ""
    print(
        f"epoch {record['epoch']:>3}   {loss}{recalls}   sum {record['sum']:.1f}   {record['seconds']:.0f} s",
        flush=True,
    )


@contextmanager
def _bars(*, enabled: bool) -> Iterator[Progress | None]:
    """A progress bar for each thing that is under way, where a person watches."""
    if not enabled or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bars:
        known: dict[str, Any] = {}

        def show(name: str, done: int, total: int) -> None:
            if name not in known:
                known[name] = bars.add_task(name, total=total)
            bars.update(known[name], completed=done, visible=done < total)

        yield show
