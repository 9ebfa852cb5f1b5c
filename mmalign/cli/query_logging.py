"""The command that keeps a sample of the queries that are asked, or stops to, or deletes it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmalign.cli.opening import named, open_collection
from mmalign.cli.output import CollectionOption, JsonOption, print_json
from mmalign.errors import InputError


def log_queries(
    place: Annotated[
        Path | None, typer.Argument(help="The collection, or the folder that it was made of; as --collection.")
    ] = None,
    collection: CollectionOption = None,
    most: Annotated[
        int | None, typer.Option("--most", help="Keep queries from now on, so many at most (2,000 is usual).", min=1)
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Keep no more; those that are there stay.")] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Delete those that are kept.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Keep a sample of the queries that are really asked, to measure the index with; without options, say what is kept.

    Nothing is kept unless this is asked for. Vectors are kept, never words: see docs/indexes.md.

    For example:

        mmalign log-queries photos.mm --most 2000

        mmalign log-queries photos.mm --off --forget
    """
    if off and most is not None:
        raise InputError("--most keeps queries and --off keeps no more; give one of them")
    opened = open_collection(named(collection, place))
    if off or most is not None:
        opened.log_queries(0 if off or most is None else most)
    forgotten = opened.forget_queries() if forget else None
    payload = opened.info()["query_log"] or {"kept": 0, "seen": 0, "most": 0}
    if as_json:
        print_json(payload | ({} if forgotten is None else {"forgotten": forgotten}))
        return
    if forgotten is not None:
        print(f"{opened.path}: {forgotten:,} queries deleted")
    on = f"{payload['most']:,} at most" if payload["most"] else "no more are"
    print(f"{opened.path}: {payload['kept']:,} of {payload['seen']:,} queries kept; {on}")
