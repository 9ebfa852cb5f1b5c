"""The command that describes pictures."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from mmalign.cli.opening import open_collection, say_which
from mmalign.cli.output import CollectionOption, JsonOption, json_list, print_json, say, shows_progress
from mmalign.errors import DecodeError, InputError

if TYPE_CHECKING:
    from mmalign.types import Caption

# Of the captions that did most, so many are shown; a word names so many that hold it.
_SHOWN, _CITED = 5, 8


def caption(
    image: Annotated[
        list[str] | None,
        typer.Argument(help="Pictures: paths or URLs. None with --write: all items of the collection."),
    ] = None,
    collection: CollectionOption = None,
    mode: Annotated[
        str,
        typer.Option(
            help="decoder writes a new caption; consensus takes the retrieved one that the others agree with most; "
            "nearest the nearest one; or a decoder of your own: the path of a training, hf:NAME, hf:FILE.gguf, "
            "openai:MODEL@URL."
        ),
    ] = "decoder",
    evidence: Annotated[
        bool,
        typer.Option("--evidence", help="Also print what was retrieved, what it did, and what each word rests on."),
    ] = False,
    ground: Annotated[
        bool, typer.Option("--ground", help="Look for the caption's phrases in the picture; say what is not found.")
    ] = False,
    rerank: Annotated[
        bool,
        typer.Option(
            "--rerank-by-alignment",
            help="Let how well the picture fits the phrases of the eight best drafts count as well; takes up to eight "
            "alignments a picture.",
        ),
    ] = False,
    floor: Annotated[float | None, typer.Option(help="Least cosine of a retrieved caption. Default: none.")] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Caption the collection's items and store it as their written_caption.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="With --write: also those that have one.")] = False,
    where: Annotated[
        str | None, typer.Option(help="With --write: only items that this SQL filter lets through.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Describe pictures, from the captions of the pictures in a collection that are like them.

    Captions of the picture itself are never used. --write goes on where it was stopped. With --json one picture is an
    object, several and --write are a list.

    For example:

        mmalign caption photo.jpg --collection captioned.mm

        mmalign caption photo.jpg --evidence --ground --json

        mmalign caption --collection photos.mm --write --mode consensus
    """
    if bool(image) == write:
        raise InputError("name pictures to caption, or --write to caption the items of the collection, and not both")
    if (again or where) and not write:
        raise InputError("--again and --where belong to --write")
    opened = open_collection(collection)
    if write:
        if evidence or ground or rerank or floor is not None:
            raise InputError(
                "--write stores captions alone; leave --evidence, --ground, --rerank-by-alignment and --floor out"
            )
        count = 0
        progress = shows_progress(as_json)
        with json_list() if as_json else nullcontext() as put:
            try:
                for name, written in opened.caption_items(mode=mode, where=where, again=again, progress=progress):
                    count += 1
                    if put is not None:
                        put({"id": name, "caption": written.text})
            except KeyboardInterrupt:
                say(
                    f"stopped; {_captions(count)} {'is' if count == 1 else 'are'} written as written_caption of "
                    f"{opened.path}. The same command " + ("begins anew." if again else "goes on.")
                )
                raise typer.Exit(130) from None
        done = "" if count or again else ": none is left without one; --again writes them anew"
        say(f"{_captions(count)} written as written_caption of {opened.path}{done}")
        return
    failed, notes_shown = 0, False
    paths = image or []
    # One picture is one object, several are a list.
    with json_list() if as_json and len(paths) > 1 else nullcontext(print_json) as put:
        for number, path in enumerate(paths):
            try:
                written = opened.caption(path, mode=mode, influence=evidence, ground=ground, rerank=rerank, floor=floor)
            except KeyboardInterrupt:
                say(f"stopped; {number:,} of {len(paths):,} pictures were captioned")
                raise typer.Exit(130) from None
            except DecodeError as error:
                # The others can still be had; the status tells that one could not.
                failed += 1
                say(f"error: {error}")
                if as_json:
                    put({"image": path, "error": error.reason})
                continue
            if as_json:
                put({"image": path, "collection": str(opened.path), **written.to_dict()})
            else:
                if not notes_shown:
                    say_which(opened, collection)
                    notes_shown = True
                _print(path, written, named=len(paths) > 1, evidence=evidence)
    if failed:
        raise typer.Exit(1)


def _captions(count: int) -> str:
    return f"{count:,} caption{'' if count == 1 else 's'}"


def _print(path: str, caption: Caption, *, named: bool, evidence: bool) -> None:
    for note in caption.notes:
        say(f"note: {note}")
    print(f"{path}: {caption.text}" if named else caption.text)
    for span in caption.spans:
        if span.kind != "phrase":
            continue
        where = "not found in the picture"
        if span.region is not None:
            x, y, width, height = (round(side) for side in span.region.box.to_list())
            where = f"at {x}, {y}, {width} x {height} pixels"
        print(f"    {span.text}: {where}")
    if not evidence:
        return
    cited = _print_words(caption)
    by_influence = sorted(range(len(caption.evidence)), key=lambda i: -(caption.evidence[i].influence or 0.0))[:_SHOWN]
    print("  retrieved captions by how near they are, and what each did:")
    shown = sorted(cited | set(by_influence))
    for number in shown:
        entry = caption.evidence[number]
        did = "" if entry.influence is None else f"  {entry.influence:+.3f}"
        print(f"    {number + 1:>3}  {entry.score:.3f}{did}  {entry.text}")
    if len(shown) < len(caption.evidence):
        print(f"    and {len(caption.evidence) - len(shown):,} more; --json lists all")


def _print_words(caption: Caption) -> set[int]:
    """Print what each word rests on; return the retrieved captions that were named."""
    print("  words and the retrieved captions that hold them:")
    cited: set[int] = set()
    for span in caption.spans:
        if span.kind != "word":
            continue
        named = span.evidence[:_CITED]
        cited.update(named)
        more = len(span.evidence) - len(named)
        numbers = ", ".join(str(number + 1) for number in named) + (f" and {more:,} more" if more else "")
        print(f"    {span.text}: {numbers or 'none'}")
    return cited
