"""The commands that tell about mmalign itself: encoders, the environment, the demonstration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmalign.cli.aligning import print_links
from mmalign.cli.opening import named, no_empty_one, say_left
from mmalign.cli.output import (
    CollectionOption,
    EncoderOption,
    JsonOption,
    print_json,
    print_table,
    shows_progress,
    size,
)
from mmalign.errors import AddInterrupted, CollectionNotFoundError


def models(as_json: JsonOption = False) -> None:
    """List encoders: width, size, licence, whether the weights are here, and how good they are.

    For example:

        mmalign models

        mmalign index ~/photos --encoder open_clip:ViT-B-32/laion2b_s34b_b79k
    """
    from mmalign.encoders import list_models

    cards = list_models()
    if as_json:
        print_json([card.to_dict() for card in cards])
        return
    print_table(
        ["encoder", "dim", "size", "licence", "here", "quality"],
        [
            [
                card.spec,
                str(card.dim),
                size(card.bytes),
                card.licence,
                "yes" if card.cached else "no",
                card.quality or "",
            ]
            for card in cards
        ],
    )


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


def demo(
    output: Annotated[Path, typer.Option(help="Folder for the collection and the page.")] = Path("mmalign-demo"),
    encoder: EncoderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search, align and caption the gallery that comes with mmalign, and write a page of it.

    The page, demo.html, carries its pictures within and needs no network. The hits are in hits.png, too.

    For example:

        mmalign demo

        mmalign demo --output /tmp/demo --json
    """
    from mmalign.cli.demonstration import run_demo

    with no_empty_one(output / "gallery.mm"):
        try:
            found, written = run_demo(output, encoder=encoder or "lite", progress=shows_progress(as_json))
        except AddInterrupted as stop:
            say_left(stop)
            raise typer.Exit(130) from None
    page, sheet = written
    if as_json:
        print_json(
            {
                "results": [result.to_dict() for result in (*found.results, found.composed)],
                "alignments": [{"image": each.uri, **each.alignment.to_dict()} for each in found.aligned],
                "captions": [{"image": each.uri, **each.caption.to_dict()} for each in found.captioned],
                "page": str(page),
                "sheets": [str(sheet)],
                "seconds": found.seconds,
            }
        )
        return
    for result in found.results:
        rows = [
            [str(rank), f"{hit.score:.3f}", Path(hit.uri).name, (hit.metadata.get("captions") or [""])[0]]
            for rank, hit in enumerate(result, 1)
        ]
        print(f"\n{result.query}")
        print_table(["", "score", "picture", "its caption"], rows)
    for aligned in found.aligned:
        print(f"\nwhere the words are, in {Path(aligned.uri).name}: {aligned.alignment.sentence}")
        print_links(aligned.alignment, aligned.picture.size)
    for captioned in found.captioned:
        print(f"\na caption for {Path(captioned.uri).name}, from the captions of others: {captioned.caption.text}")
    print("\nSome of it is wrong: lite is a small model. CLIP does better.")
    print(f"look at: {page}  {sheet}")
