"""What the commands share: options, and the ways to print.

Results go to standard output; progress, remarks and errors go to standard error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mmalign.media.policy import MediaPolicy
    from mmalign.types import Skip

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
EncoderOption = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        "-e",
        help="lite, open_clip:ViT-B-32/laion2b_s34b_b79k, open_clip:local-dir:PATH, st:clip-ViT-B-32, ...; "
        "see `mmalign models`. Default: the collection's own, or lite for a new one.",
    ),
]


def media_policy(*, allow_private: bool) -> MediaPolicy | None:
    """What may be read: that of the environment, with private networks where the option allows them."""
    if not allow_private:
        return None
    from dataclasses import replace

    from mmalign.media.policy import MediaPolicy

    return replace(MediaPolicy.from_environment(), allow_private_networks=True)


def say(text: str) -> None:
    """Print a remark on standard error."""
    print(text, file=sys.stderr)


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


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under a header, in columns."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*header, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    # A pipe has no width; a table cut to 80 columns would lose what it was asked for.
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 200)
    console.print(table)


def size(count: int | None) -> str:
    """A count of bytes in megabytes, empty where it is not known."""
    return "" if count is None else f"{count / 1e6:,.0f} MB"
