"""The verbs of a collection: each parses its words, calls the method of the same name, and prints."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmalign.cli.gone import gone_items
from mmalign.cli.opening import named, no_empty_one, open_collection, say_left
from mmalign.cli.output import (
    CollectionEncoderOption,
    CollectionOption,
    JsonOption,
    PrivateOption,
    if_stopped,
    media_policy,
    print_fact,
    print_json,
    say,
    say_skipped,
    shows_progress,
)
from mmalign.cli.reencoding import print_reencode, run_reencode, say_notes
from mmalign.errors import AddInterrupted, InputError, SourceError, StorageError

if TYPE_CHECKING:
    from mmalign.collection import Collection
    from mmalign.types import AddReport, ReencodeReport


def index(
    source: Annotated[
        str | None,
        typer.Argument(
            help="A folder, a table (.jsonl .csv .tsv .parquet .json) with a path or URL column, a picture, "
            "a glob in quotes, or - for paths on standard input. May be left out with --reencode or --rebuild."
        ),
    ] = None,
    collection: Annotated[
        Path | None,
        typer.Option(
            "--collection", "-c", help="Where to keep it. Default: $MMALIGN_COLLECTION, else FOLDER.mm beside a folder."
        ),
    ] = None,
    encoder: CollectionEncoderOption = None,
    recipe: Annotated[
        str, typer.Option(help="Index design: auto, a name from `mmalign recipes`, or a FAISS factory string.")
    ] = "auto",
    prune: Annotated[bool, typer.Option("--prune", help="Remove items whose file is gone, or is excluded.")] = False,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            help="Leave out files and folders by a pattern as in a .gitignore, relative to SOURCE, such as '*.gif' or "
            "'raw/'. May be given several times; is kept to from now on, until '!PATTERN' takes it back.",
        ),
    ] = None,
    restore: Annotated[
        bool, typer.Option("--restore", help="Bring back what `mmalign remove` took out of the collection.")
    ] = False,
    reencode: Annotated[
        bool,
        typer.Option(
            "--reencode",
            help="Encode all pictures anew, with --encoder, else with the newest version of the collection's own. "
            "Ids, captions and metadata stay. With SOURCE, what is new there is added after that.",
        ),
    ] = False,
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild",
            help="Build the index again and measure its recall anew, with the queries that `mmalign log-queries` keeps "
            "where there are 100 of a kind. SOURCE may be left out.",
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

        mmalign index ~/photos --exclude '*.gif' --exclude 'raw/'

        mmalign index pictures.csv --collection shop.mm

        find . -name '*.jpg' | mmalign index - --collection found.mm

        mmalign index --reencode --collection found.mm
    """
    if drop_missing and not reencode:
        raise InputError("--drop-missing belongs to --reencode; to remove items whose file is gone, use --prune")
    if source is None:
        if not reencode and not rebuild:
            raise InputError("say what to index: a folder, a table, a glob or - for standard input")
        if prune or exclude or restore or (recipe != "auto" and not rebuild):
            raise InputError(
                "--prune, --exclude, --restore and --recipe need a SOURCE to bring the collection up to date with"
            )
        opened = open_collection(collection)
        if not reencode:
            _rebuild(opened, recipe, as_json=as_json)
            return
        done = run_reencode(opened, encoder=encoder, drop_missing=drop_missing, as_json=as_json)
        if as_json:
            print_json({"reencode": done.to_dict()})
        else:
            print_reencode(opened, done)
        return
    path = _target(source, collection)
    with no_empty_one(path):
        opened, renewed = _open_to_index(
            path, encoder=encoder, reencode=reencode, drop_missing=drop_missing, as_json=as_json
        )
        progress = shows_progress(as_json)
        try:
            report = opened.add(
                source,
                prune=prune,
                exclude=exclude or (),
                restore=restore,
                progress=progress,
                policy=media_policy(allow_private=allow_private),
            )
        except AddInterrupted as stop:
            _say_stopped(opened, stop, renewed, as_json=as_json)
            raise typer.Exit(130) from None
        try:
            opened.refresh_index(recipe, rebuild=rebuild, progress=progress)
        except KeyboardInterrupt:
            _print_report(opened, report, renewed, as_json=as_json)
            say(
                "stopped before the index was brought up to date; all items are kept, and those that it lacks are "
                "searched one by one. Go on with the same command."
            )
            raise typer.Exit(130) from None
        _print_report(opened, report, renewed, as_json=as_json)
        say_notes(opened)
        if report.skipped and not len(opened):
            say(f"error: nothing of {source} could be used")
            raise typer.Exit(1)


def _rebuild(opened: Collection, recipe: str, *, as_json: bool) -> None:
    """Build the index again, with nothing added."""
    with if_stopped("stopped; the index that was in use stays"):
        manifest = opened.refresh_index(recipe, rebuild=True, progress=shows_progress(as_json))
    if as_json:
        print_json({"index": None if manifest is None else manifest.recipe, "recall": opened.info()["recall"]})
        return
    built = (
        "no index, which so few items need not" if manifest is None else f"{manifest.recipe}, {manifest.rows:,} rows"
    )
    print(f"{opened.path}: {built}")
    say_notes(opened)


def _open_to_index(
    path: Path, *, encoder: str | None, reencode: bool, drop_missing: bool, as_json: bool
) -> tuple[Collection, ReencodeReport | None]:
    """The collection to bring up to date, encoded anew first where that is asked for."""
    with if_stopped("stopped before anything was done"):
        from mmalign.collection import FILE, Collection

        if not reencode or not (path / FILE).is_file():
            return Collection.open_or_create(path, encoder=encoder), None
        opened = Collection.open(path)
    renewed = run_reencode(opened, encoder=encoder, drop_missing=drop_missing, as_json=as_json)
    if not as_json:
        print_reencode(opened, renewed)
    return opened, renewed


def _target(source: str, collection: Path | None) -> Path:
    """The collection that `index` means."""
    from mmalign.collection import VARIABLE, locate_collection
    from mmalign.media import default_collection_path

    if collection is not None or os.environ.get(VARIABLE):
        return locate_collection(collection)
    default = default_collection_path(source)
    if default is None:
        if not Path(source).exists() and source != "-" and not any(sign in source for sign in "*?["):
            raise SourceError(f"{source!r} does not exist; give a folder, a table, a glob or - for standard input")
        raise InputError(f"{source!r} is not a folder; say where the collection goes with --collection NAME.mm")
    if not default.exists() and not os.access(default.parent, os.W_OK):
        raise StorageError(f"cannot write beside the folder ({default.parent}); name a place with --collection NAME.mm")
    return default


def _say_stopped(
    opened: Collection, stop: AddInterrupted[AddReport], renewed: ReencodeReport | None, *, as_json: bool
) -> None:
    """Say what was done until Ctrl-C, and what is left."""
    if as_json or len(opened):
        _print_report(opened, stop.report, renewed, as_json=as_json, more={"left": stop.left})
    say_left(stop)


def _print_report(
    opened: Collection,
    report: AddReport,
    renewed: ReencodeReport | None,
    *,
    as_json: bool,
    more: Mapping[str, Any] | None = None,
) -> None:
    if as_json:
        print_json({**report.to_dict(), **(more or {}), **({} if renewed is None else {"reencode": renewed.to_dict()})})
        return
    say_skipped(report.skipped)
    for note in report.notes:
        say(f"note: {note.about + ': ' if note.about else ''}{note}")
    if report.unread:
        say("not read: " + ", ".join(f"{count:,} {ending}" for ending, count in report.unread.items()))
    if report.kept_out:
        one = report.kept_out == 1
        what, stays, them = ("picture that was", "stays", "it") if one else ("pictures that were", "stay", "them")
        say(f"{report.kept_out:,} {what} removed earlier {stays} out; --restore brings {them} back")
    counts = {
        "added": report.added,
        "updated": report.updated,
        "moved": report.moved,
        "unchanged": report.unchanged,
        "removed": report.removed,
        "skipped": len(report.skipped),
    }
    summary = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    summary = summary or ("nothing to do" if more is None else "nothing done")
    items = "item" if len(opened) == 1 else "items"
    print(f"{opened.path}: {len(opened):,} {items} ({summary}; {report.encoded:,} encoded in {report.seconds:.1f} s)")


def info(
    place: Annotated[
        Path | None, typer.Argument(help="The collection, or the folder that it was made of; as --collection.")
    ] = None,
    collection: CollectionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a collection holds: items, encoder, columns, index, size on disk.

    For example:

        mmalign info

        mmalign info photos.mm --json
    """
    opened = open_collection(named(collection, place))
    payload = opened.info()
    gone = gone_items(opened)
    if gone is not None:
        payload["notes"] = [*payload["notes"], gone]
    if as_json:
        print_json(payload)
        return
    for note in payload.pop("notes"):
        say(f"note: {note}")
    cost = payload.pop("index_cost")
    if payload["metric"] == "cosine":
        # What nearly all collections have.
        del payload["metric"]
    payload["recall"] = {
        kind: f"@{one['k']} {one['recall']:.3f} (at least {one['lower']:.3f}, "
        + ("answered exactly)" if one["effort"] is None else f"effort {one['effort']})")
        for kind, one in payload["recall"].items()
    }
    if payload["query_log"] is not None:
        kept = payload["query_log"]
        payload["query_log"] = f"{kept['kept']:,} of {kept['seen']:,} queries kept, {kept['most']:,} at most"
    else:
        # Of what nobody has asked for there is nothing to say.
        del payload["query_log"]
    payload["views"] = {
        view: f"{one['rows']:,} rows" + ("" if one["index"] is None else f" ({one['index']} over {one['indexed']:,})")
        for view, one in payload["views"].items()
        # Of one that nobody has asked for there is nothing to say.
        if one["rows"] or one["index"] is not None
    }
    for name, value in payload.items():
        if name == "columns":
            value = _columns(opened, value)
        elif isinstance(value, dict):
            if not value:
                # No name was changed, no recall measured, no view searched: there is nothing to say.
                continue
            value = ", ".join(f"{key} {kind}" for key, kind in value.items())
        print_fact(name.replace("_", " "), "none" if value is None else str(value), column=15)
    if cost is not None:
        size = cost["taken"].get("bytes_per_vector")
        vector = "" if size is None else f"{size:,.0f} bytes a vector, "
        print_fact("index took", vector + _spent(cost["taken"]), column=15)


def _columns(opened: Collection, metadata: Mapping[str, str]) -> str:
    """The columns that a filter may name: those that came on top with their types, and those of every item."""
    own = ", ".join(name for name in opened.snapshot().readable if name not in metadata)
    on_top = ", ".join(f"{name} {kind}" for name, kind in metadata.items())
    return f"{on_top}; of every item {own}" if on_top else f"of every item {own}"


def _spent(taken: dict[str, float]) -> str:
    """The time and memory that a build took, in words."""
    from mmalign.utils import show_bytes, show_seconds

    time = f"{show_seconds(taken['seconds'])} to build" if "seconds" in taken else "a time that was not kept"
    return time + (f", {show_bytes(taken['memory'])} of memory" if "memory" in taken else "")


def remove(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids or paths of items, as search prints them.")] = None,
    where: Annotated[str | None, typer.Option(help="SQL over the metadata.")] = None,
    purge: Annotated[bool, typer.Option("--purge", help="Leave no byte of the items on disk.")] = False,
    collection: CollectionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove items from a collection; the pictures themselves are not touched.

    For example:

        mmalign remove ~/photos/blurred.jpg

        mmalign remove --where "year < 2000" --purge
    """
    opened = open_collection(collection)
    names = None if not ids else {name if "://" in name else _as_uri(name, opened): name for name in ids}
    with if_stopped(
        "stopped; items may be removed already, and "
        + ("bytes of them still be on disk. " if purge else "others not. ")
        + "The same command again finishes it."
    ):
        removed = opened.remove(None if names is None else list(names), where=where, purge=purge)
    unknown = [(names or {})[name] for name in removed.unknown]
    if as_json:
        print_json({"removed": removed} | ({"unknown": unknown} if unknown else {}))
    else:
        for name in unknown:
            say(f"no item has the id or path {name!r}")
        print(f"{opened.path}: removed {removed:,}, {len(opened):,} item{'s' * (len(opened) != 1)} left")
    if names and len(unknown) == len(names):
        raise typer.Exit(1)


def _as_uri(name: str, opened: Collection) -> str:
    """A name given on the command line is an id, or a path that may be relative to the working folder."""
    from mmalign.media import Locator

    return name if opened.has(name) else Locator(str(Path.cwd())).uri(name)
