"""The command that shows what mmalign does with the gallery that comes with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmalign.cli.aligning import print_links
from mmalign.cli.opening import no_empty_one, say_left
from mmalign.cli.output import EncoderOption, JsonOption, print_json, print_table, shows_progress
from mmalign.errors import AddInterrupted


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
