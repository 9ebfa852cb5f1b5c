"""The command that checks the environment and a collection."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmalign.cli.opening import named
from mmalign.cli.output import CollectionOption, JsonOption, print_json
from mmalign.errors import CollectionNotFoundError


def doctor(
    place: Annotated[
        Path | None, typer.Argument(help="The collection, or the folder that it was made of; as --collection.")
    ] = None,
    collection: CollectionOption = None,
    deep: Annotated[
        bool, typer.Option(help="Also compare every item and caption with its checksum, and list what is damaged.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check the environment, and a collection where there is one; exit status 1 where something is wrong.

    For example:

        mmalign doctor

        mmalign doctor photos.mm --deep --json
    """
    from mmalign.cli.checks import check_collection, check_environment
    from mmalign.collection import locate_collection

    checks = check_environment()
    try:
        path = locate_collection(named(collection, place))
    except CollectionNotFoundError:
        path = None
    if path is not None:
        checks += check_collection(path, deep=deep)
    if as_json:
        print_json([check.to_dict() for check in checks])
    else:
        for check in checks:
            print(f"{'ok  ' if check.ok else 'BAD '} {check.name}: {check.detail}")
            if check.remedy:
                print(f"     -> {check.remedy}")
    if not all(check.ok for check in checks):
        raise typer.Exit(1)
