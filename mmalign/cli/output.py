"""What the commands share: options, and the ways to print.

Results go to standard output; progress, remarks and errors go to standard error.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from mmalign.media import MediaPolicy
    from mmalign.types import Skip

# Less than this is no room for a sentence.
_LEAST_WRAPPED = 24

CollectionOption = Annotated[
    Path | None,
    typer.Option(
        "--collection",
        "-c",
        help="The collection. Default: $MMALIGN_COLLECTION, else the nearest *.mm in this folder or its parents.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
PrivateOption = Annotated[
    bool,
    typer.Option(
        "--allow-private-network",
        help="Fetch URLs of hosts in private networks and on this machine, too; else $MMALIGN_ALLOW_PRIVATE_NETWORK.",
    ),
]
_ENCODERS = (
    "lite, open_clip:ViT-B-32/laion2b_s34b_b79k, open_clip:local-dir:PATH, st:clip-ViT-B-32, ...; see `mmalign models`."
)
EncoderOption = Annotated[str | None, typer.Option("--encoder", "-e", help=f"{_ENCODERS} Default: lite.")]
CollectionEncoderOption = Annotated[
    str | None,
    typer.Option("--encoder", "-e", help=f"{_ENCODERS} Default: the collection's own, or lite for a new one."),
]


class Group(TyperGroup):
    """Commands whose list says of each all of its first sentence; typer would cut it to one line."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list for --help."""
        commands = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, command.get_short_help_str(10_000)) for name, command in commands if command is not None]
            )


def media_policy(*, allow_private: bool) -> MediaPolicy | None:
    """What may be read: that of the environment, with private networks where the option allows them."""
    if not allow_private:
        return None
    from dataclasses import replace

    from mmalign.media import MediaPolicy

    return replace(MediaPolicy.from_environment(), allow_private_networks=True)


def say(text: str) -> None:
    """Print a remark on standard error; where nobody reads it any more, the result should still come."""
    try:
        print(text, file=sys.stderr)
    except BrokenPipeError:
        nobody_reads(sys.stderr)


def nobody_reads(stream: TextIO) -> None:
    """Let what is still printed to a stream go nowhere: the reader of the pipe, such as `head`, has seen enough."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def flush() -> None:
    """Print what waits to be printed."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            nobody_reads(stream)


def say_skipped(skipped: Sequence[Skip], *, most: int = 20) -> None:
    """Name the first items that were left out, with the reason, and count the rest."""
    for skip in skipped[:most]:
        say(f"skipped {skip.uri}: {skip.reason}")
    if len(skipped) > most:
        say(f"... and {len(skipped) - most} more; --json lists all")


def print_json(value: Any) -> None:
    """Print one line of JSON on standard output; what JSON has no word for, such as infinity, is null."""
    print(_json(value))


@contextmanager
def json_list() -> Iterator[Callable[[Any], None]]:
    """Print a list of JSON as it grows, an entry a line: one whole document, also where the work ends early.

    Yields:
        A function that prints one more entry.
    """
    count = 0

    def put(value: Any) -> None:
        nonlocal count
        print(f"{',' if count else '['}\n{_json(value)}", end="", flush=True)
        count += 1

    try:
        yield put
    finally:
        print("\n]" if count else "[]")


def _json(value: Any) -> str:
    from mmalign.types import json_ready

    ready = json_ready(value)
    text = json.dumps(ready, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        # A lone surrogate of a file's name, or a terminal that is not UTF-8: escaped, it means the same.
        text = json.dumps(ready, allow_nan=False)
    return text


def shows_progress(as_json: bool) -> bool:
    """Whether to show progress: a program that reads JSON has no use for it, unless a person watches, too."""
    return not as_json or sys.stderr.isatty()


@contextmanager
def if_stopped(text: str, *, but: type[KeyboardInterrupt] | tuple[()] = ()) -> Iterator[None]:
    """Say what Ctrl-C leaves behind, and end with status 130.

    Args:
        text: What was done, what is kept, and how to go on.
        but: An interruption that knows better what to say, and is passed on.
    """
    try:
        yield
    except but:
        raise
    except KeyboardInterrupt:
        say(text)
        raise typer.Exit(130) from None


def print_fact(name: str, value: str, *, column: int) -> None:
    """Print a name and what there is to say, wrapped to the width of the terminal, or 80.

    Args:
        name: What it is.
        value: The rest of the line.
        column: Where the rest begins.
    """
    width = shutil.get_terminal_size().columns
    print(
        textwrap.fill(
            value,
            width,
            initial_indent=f"{name:<{column}}",
            subsequent_indent=" " * column,
            break_long_words=False,
            break_on_hyphens=False,
        )
    )


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, wraps: int = -1) -> None:
    """Print rows under a header, in columns where these fit, else one below the other.

    The width is that of the terminal, or `$COLUMNS`, or 80. No cell is cut, and only that of one column is wrapped.

    Args:
        header: The names of the columns.
        rows: A text for each column.
        wraps: Which column may be wrapped.
    """
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    width = shutil.get_terminal_size().columns
    widest = [max(map(cell_len, column)) for column in zip(*rows, strict=True)] or [0] * len(header)
    # What a column needs: its cells in one line, and its header in as many as it has words.
    needed = [max([wide, *map(cell_len, name.split())]) for wide, name in zip(widest, header, strict=True)]
    wraps %= len(header)
    if rows and sum(needed) - needed[wraps] + min(needed[wraps], _LEAST_WRAPPED) + len(header) - 1 > width:
        _print_stacked(header, rows, width)
        return
    gap = 1 if sum(needed) + 2 * len(header) > width else 2
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    for name, wide in zip(header, _widths(header, needed, width - gap * (len(header) - 1), wraps), strict=True):
        table.add_column(name, width=wide)
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console(highlight=False, markup=False, width=width)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        print(line.rstrip())


def _widths(header: Sequence[str], needed: Sequence[int], room: int, wraps: int) -> list[int]:
    """How wide each column is: what it needs, and its header in one line where there is room for that."""
    from rich.cells import cell_len

    widths = list(needed)
    widths[wraps] = min(needed[wraps], _LEAST_WRAPPED)
    left = room - sum(widths)
    for index, name in enumerate(header):
        more = max(0, cell_len(name) - widths[index])
        if index != wraps and more <= left:
            widths[index] += more
            left -= more
    widths[wraps] += max(0, min(left, max(needed[wraps], cell_len(header[wraps])) - widths[wraps]))
    return widths


def _print_stacked(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> None:
    """Each row as its first cell, and below it the others with their names, as many in a line as fit."""
    for row in rows:
        print(row[0])
        line = ""
        for name, cell in zip(header[1:], row[1:], strict=True):
            entry = f"{name}: {cell}" if name else cell
            if not cell:
                continue
            if line and len(line) + len(entry) + 2 > width:
                print(_filled(line, width))
                line = ""
            line += f"  {entry}" if line else f"    {entry}"
        if line:
            print(_filled(line, width))


def _filled(text: str, width: int) -> str:
    return textwrap.fill(text, width, subsequent_indent=" " * 8, break_long_words=False, break_on_hyphens=False)


def size(count: int | None) -> str:
    """A count of bytes in megabytes, empty where it is not known."""
    return "" if count is None else f"{count / 1e6:,.0f} MB"
