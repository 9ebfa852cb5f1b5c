"""The verbs of a collection: each parses its words, calls the method of the same name, and prints."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmalign.cli.output import (
    CollectionOption,
    EncoderOption,
    JsonOption,
    PrivateOption,
    media_policy,
    print_json,
    say,
    say_skipped,
)
from mmalign.cli.reencoding import print_reencode, run_reencode, say_notes
from mmalign.errors import AddInterrupted, InputError, SourceError

if TYPE_CHECKING:
    from mmalign.collection import Collection
    from mmalign.types import AddReport, ReencodeReport, SearchResult


def index(
    source: Annotated[
        str | None,
        typer.Argument(
            help="A folder, a table (.jsonl .csv .tsv .parquet .json) with a path or URL column, a picture, "
            "a glob in quotes, or - for paths on standard input. May be left out with --reencode."
        ),
    ] = None,
    collection: Annotated[
        Path | None,
        typer.Option(
            "--collection", "-c", help="Where to keep it. Default: $MMALIGN_COLLECTION, else FOLDER.mm beside a folder."
        ),
    ] = None,
    encoder: EncoderOption = None,
    recipe: Annotated[
        str, typer.Option(help="Index design: auto, a name from `mmalign recipes`, or a FAISS factory string.")
    ] = "auto",
    prune: Annotated[bool, typer.Option("--prune", help="Remove items whose file is gone.")] = False,
    reencode: Annotated[
        bool,
        typer.Option(
            "--reencode",
            help="Encode all pictures anew, with --encoder, else with the newest version of the collection's own. "
            "Ids, captions and metadata stay. With SOURCE, what is new there is added after that.",
        ),
    ] = False,
    drop_missing: Annotated[
        bool,
        typer.Option("--drop-missing", help="With --reencode: remove items whose picture cannot be read any more."),
    ] = False,
    allow_private: PrivateOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a collection of pictures, or bring it up to date.

    Run it again at any time: only new and edited pictures are encoded, moved ones are recognised, and a run that was
    stopped goes on where it was.

    For example:

        mmalign index ~/photos

        mmalign index pictures.csv --collection shop.mm

        find . -name '*.jpg' | mmalign index - --collection found.mm

        mmalign index --reencode --collection found.mm
    """
    from mmalign.collection import Collection
    from mmalign.store.description import FILE

    if drop_missing and not reencode:
        raise InputError("--drop-missing belongs to --reencode; to remove items whose file is gone, use --prune")
    renewed = None
    if source is None:
        if not reencode:
            raise InputError("say what to index: a folder, a table, a glob or - for standard input")
        if prune or recipe != "auto":
            raise InputError("--prune and --recipe need a SOURCE to bring the collection up to date with")
        opened = open_collection(collection)
        renewed = run_reencode(opened, encoder=encoder, drop_missing=drop_missing, as_json=as_json)
        if as_json:
            print_json({"reencode": renewed.to_dict()})
        else:
            print_reencode(opened, renewed)
        return
    path = _target(source, collection)
    fresh = not (path / FILE).is_file()
    if reencode and not fresh:
        opened = Collection.open(path)
        renewed = run_reencode(opened, encoder=encoder, drop_missing=drop_missing, as_json=as_json)
        if not as_json:
            print_reencode(opened, renewed)
    else:
        opened = Collection.open_or_create(path, encoder=encoder)
    try:
        report = opened.add(source, prune=prune, progress=not as_json, policy=media_policy(allow_private=allow_private))
        opened.refresh_index(recipe, progress=not as_json)
    except AddInterrupted as stop:
        _print_report(opened, stop.report, renewed, as_json=as_json)
        say("stopped; what was encoded is kept. Go on with the same command.")
        raise typer.Exit(130) from None
    except SourceError:
        if fresh and not len(opened):
            shutil.rmtree(path)
        raise
    _print_report(opened, report, renewed, as_json=as_json)
    say_notes(opened)


def _target(source: str, collection: Path | None) -> Path:
    """The collection that `index` means."""
    from mmalign.locate import VARIABLE
    from mmalign.media.sources import default_collection_path

    if collection is not None:
        return collection
    if named := os.environ.get(VARIABLE):
        return Path(named)
    default = default_collection_path(source)
    if default is None:
        if not Path(source).exists() and source != "-" and not any(sign in source for sign in "*?["):
            raise SourceError(f"{source!r} does not exist; give a folder, a table, a glob or - for standard input")
        raise InputError(f"{source!r} is not a folder; say where the collection goes with --collection NAME.mm")
    if not default.exists() and not os.access(default.parent, os.W_OK):
        raise InputError(f"cannot write beside the folder ({default.parent}); name a place with --collection NAME.mm")
    return default


def _print_report(opened: Collection, report: AddReport, renewed: ReencodeReport | None, *, as_json: bool) -> None:
    if as_json:
        print_json(report.to_dict() | ({} if renewed is None else {"reencode": renewed.to_dict()}))
        return
    say_skipped(report.skipped)
    counts = {
        "added": report.added,
        "updated": report.updated,
        "moved": report.moved,
        "unchanged": report.unchanged,
        "removed": report.removed,
        "skipped": len(report.skipped),
    }
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "nothing to do"
    print(f"{opened.path}: {len(opened):,} items ({told}; {report.encoded:,} encoded in {report.seconds:.1f} s)")


def search(
    query: Annotated[
        str,
        typer.Argument(
            help="Words, a picture's path or URL, or several joined by ' + ' and ' - ', with weights such as '2:dog'."
        ),
    ],
    k: Annotated[int, typer.Option("-k", help="How many hits.")] = 10,
    where: Annotated[
        str | None, typer.Option(help="SQL over the metadata, such as \"year >= 2020 AND label = 'dog'\".")
    ] = None,
    min_recall: Annotated[
        float | None,
        typer.Option(
            help="Share of the true nearest items, 0 to 1, that such searches must find on average. What the index was "
            "not measured to keep is searched exactly. Default: what it was built to keep."
        ),
    ] = None,
    min_probability: Annotated[
        float | None,
        typer.Option(
            help="Leave out hits that are less likely, 0 to 1, to be the picture that the words describe; perhaps all."
        ),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Show where in each picture the words are. Where they say where things are, such as 'a dog left of a "
            "bicycle', put the best 50 hits in order by that too. Takes up to a few seconds a picture.",
        ),
    ] = False,
    captions: Annotated[bool, typer.Option("--captions", help="Find captions instead of pictures.")] = False,
    collection: CollectionOption = None,
    paths_only: Annotated[bool, typer.Option("--paths-only", help="Print paths alone, one a line.")] = False,
    contact_sheet: Annotated[
        Path | None, typer.Option(help="Also write the hits as a picture (.png) or a page (.html).")
    ] = None,
    allow_private: PrivateOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find pictures by words, by a picture, or by both.

    For example:

        mmalign search "two dogs playing in the snow"

        mmalign search "2:dog + beach.jpg - leash" -k 5 --contact-sheet hits.png

        mmalign search sunset --where "width > height" --paths-only

        mmalign search "two dogs playing in the snow" --min-probability 0.5

        mmalign search "a dog left of a bicycle" --explain

        mmalign search photo.jpg --captions
    """
    opened = open_collection(collection)
    policy = media_policy(allow_private=allow_private)
    if not captions:
        result = opened.search(
            query,
            k=k,
            where=where,
            min_recall=min_recall,
            min_probability=min_probability,
            explain=explain,
            policy=policy,
        )
    elif explain:
        raise InputError("--explain looks for words in pictures; leave it out with --captions")
    elif min_recall is not None:
        raise InputError("captions are searched exactly; leave out --min-recall with --captions")
    elif min_probability is None:
        result = opened.search_captions(query, k=k, where=where, policy=policy)
    else:
        raise InputError("--min-probability was measured for pictures; leave it out with --captions")
    if contact_sheet is not None:
        from mmalign.contact_sheet import write_contact_sheet

        say(f"wrote {write_contact_sheet([result], contact_sheet)}")
    if as_json:
        print_json(result.to_dict())
        return
    for note in result.notes:
        say(f"note: {note}")
    if paths_only:
        for hit in result:
            print(hit.uri)
        return
    _print_hits(result)


def _print_hits(result: SearchResult) -> None:
    if not result.hits:
        print("nothing found")
        return
    width = len(str(len(result)))
    for rank, hit in enumerate(result, 1):
        likely = "" if hit.probability is None else f"{hit.probability:>4.0%}  "
        print(f"{rank:>{width}}.  {hit.score:.3f}  {likely}{hit.uri or hit.id}")
        for caption in (hit.metadata.get("captions") or [])[:1]:
            print(f"{'':>{width}}          {' ' * len(likely)}{caption}")
        for region in hit.regions or ():
            box = ", ".join(f"{edge:.0f}" for edge in region.box.to_list())
            print(f"{'':>{width}}          {' ' * len(likely)}{region.phrase}: [{box}]  {region.score:.0%}")


def info(collection: CollectionOption = None, as_json: JsonOption = False) -> None:
    """Say what a collection holds: items, encoder, columns, index, size on disk."""
    opened = open_collection(collection)
    told = opened.info()
    if as_json:
        print_json(told)
        return
    for note in told.pop("notes"):
        say(f"note: {note}")
    cost = told.pop("index_cost")
    told["recall"] = {
        kind: f"@{one['k']} {one['recall']:.3f} (at least {one['lower']:.3f}, "
        + ("answered exactly)" if one["effort"] is None else f"effort {one['effort']})")
        for kind, one in told["recall"].items()
    }
    for name, value in told.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {kind}" for key, kind in value.items()) or "none"
        print(f"{name.replace('_', ' '):<14} {value if value is not None else 'none'}")
    if cost is not None:
        size = cost["taken"].get("bytes_per_vector")
        print(
            f"{'index took':<14} " + ("" if size is None else f"{size:,.0f} bytes a vector, ") + _spent(cost["taken"])
        )


def _spent(taken: dict[str, float]) -> str:
    """The time and memory that a build took, in words."""
    from mmalign.quantities import show_bytes, show_seconds

    time = f"{show_seconds(taken['seconds'])} to build" if "seconds" in taken else "a time that was not kept"
    return time + (f", {show_bytes(taken['memory'])} of memory" if "memory" in taken else "")


def remove(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids or paths of items, as search prints them.")] = None,
    where: Annotated[str | None, typer.Option(help="SQL over the metadata.")] = None,
    purge: Annotated[bool, typer.Option("--purge", help="Leave no byte of the items on disk.")] = False,
    collection: CollectionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove items from a collection; the pictures themselves are not touched."""
    opened = open_collection(collection)
    names = None if not ids else [name if "://" in name else _as_uri(name, opened) for name in ids]
    removed = opened.remove(names, where=where, purge=purge)
    if as_json:
        print_json({"removed": removed})
    else:
        print(f"{opened.path}: removed {removed:,}, {len(opened):,} items left")


def _as_uri(name: str, opened: Collection) -> str:
    """A name given on the command line is an id, or a path that may be relative to the working folder."""
    from mmalign.media.uris import path_to_uri

    return name if opened.has(name) else path_to_uri(Path(os.path.abspath(name)))  # noqa: PTH100 - no symlinks


def open_collection(collection: Path | None) -> Collection:
    """Open the collection that the option means, else the one that is found."""
    from mmalign.collection import Collection
    from mmalign.locate import locate_collection

    return Collection.open(locate_collection(collection))
