"""The `mmalign` command: each verb parses its words, calls the method of the same name, and prints.

Results go to standard output; progress, remarks and errors go to standard error.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from mmalign.errors import AddInterrupted, CollectionNotFoundError, InputError, MMAlignError, SourceError

if TYPE_CHECKING:
    from mmalign.collection import Collection
    from mmalign.types import AddReport, SearchResult

app = typer.Typer(
    name="mmalign",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Find pictures by describing them.

    Make a collection of a folder once, then search it:

        mmalign index ~/photos

        cd ~/photos && mmalign search "two dogs playing in the snow"

    Every command takes --json.""",
)
evaluate_app = typer.Typer(no_args_is_help=True, help="Measure how good an encoder is on your own data.")
app.add_typer(evaluate_app, name="eval")

CollectionOption = Annotated[
    Path | None,
    typer.Option(
        "--collection",
        "-c",
        help="The collection. Default: $MMALIGN_COLLECTION, else the nearest *.mm in this folder or its parents.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
EncoderOption = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        "-e",
        help="lite, open_clip:ViT-B-32/laion2b_s34b_b79k, open_clip:local-dir:PATH, st:clip-ViT-B-32, ...; "
        "see `mmalign models`. Default: the collection's own, or lite for a new one.",
    ),
]


@app.command()
def index(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder, a table (.jsonl .csv .tsv .parquet .json) with a path or URL column, a picture, "
            "a glob in quotes, or - for paths on standard input."
        ),
    ],
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
    as_json: JsonOption = False,
) -> None:
    """Make a collection of pictures, or bring it up to date.

    Run it again at any time: only new and edited pictures are encoded, moved ones are recognised, and a run that was
    stopped goes on where it was.

    For example:

        mmalign index ~/photos

        mmalign index pictures.csv --collection shop.mm

        find . -name '*.jpg' | mmalign index - --collection found.mm
    """
    from mmalign.collection import Collection
    from mmalign.store.description import FILE

    path = _target(source, collection)
    fresh = not (path / FILE).is_file()
    opened = Collection.open_or_create(path, encoder=encoder)
    try:
        report = opened.add(source, prune=prune, progress=not as_json)
        opened.refresh_index(recipe, progress=not as_json)
    except AddInterrupted as stop:
        _print_report(opened, stop.report, as_json=as_json)
        _say("stopped; what was encoded is kept. Go on with the same command.")
        raise typer.Exit(130) from None
    except SourceError:
        if fresh and not len(opened):
            shutil.rmtree(path)
        raise
    _print_report(opened, report, as_json=as_json)


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


def _print_report(opened: Collection, report: AddReport, *, as_json: bool) -> None:
    if as_json:
        _print_json(report.to_dict())
        return
    for skip in report.skipped[:20]:
        _say(f"skipped {skip.uri}: {skip.reason}")
    if len(report.skipped) > 20:
        _say(f"... and {len(report.skipped) - 20} more; --json lists all")
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


@app.command()
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
    captions: Annotated[bool, typer.Option("--captions", help="Find captions instead of pictures.")] = False,
    collection: CollectionOption = None,
    paths_only: Annotated[bool, typer.Option("--paths-only", help="Print paths alone, one a line.")] = False,
    contact_sheet: Annotated[
        Path | None, typer.Option(help="Also write the hits as a picture (.png) or a page (.html).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find pictures by words, by a picture, or by both.

    For example:

        mmalign search "two dogs playing in the snow"

        mmalign search "2:dog + beach.jpg - leash" -k 5 --contact-sheet hits.png

        mmalign search sunset --where "width > height" --paths-only

        mmalign search photo.jpg --captions
    """
    opened = _open(collection)
    find = opened.search_captions if captions else opened.search
    result = find(query, k=k, where=where)
    if contact_sheet is not None:
        from mmalign.contact_sheet import write_contact_sheet

        _say(f"wrote {write_contact_sheet([result], contact_sheet)}")
    if as_json:
        _print_json(result.to_dict())
        return
    for note in result.notes:
        _say(f"note: {note}")
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
        print(f"{rank:>{width}}.  {hit.score:.3f}  {hit.uri or hit.id}")
        for caption in (hit.metadata.get("captions") or [])[:1]:
            print(f"{'':>{width}}          {caption}")


@app.command()
def info(collection: CollectionOption = None, as_json: JsonOption = False) -> None:
    """Say what a collection holds: items, encoder, columns, index, size on disk."""
    opened = _open(collection)
    told = opened.info()
    if as_json:
        _print_json(told)
        return
    for name, value in told.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {kind}" for key, kind in value.items()) or "none"
        print(f"{name.replace('_', ' '):<14} {value if value is not None else 'none'}")


@app.command()
def remove(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids or paths of items, as search prints them.")] = None,
    where: Annotated[str | None, typer.Option(help="SQL over the metadata.")] = None,
    purge: Annotated[bool, typer.Option("--purge", help="Leave no byte of the items on disk.")] = False,
    collection: CollectionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove items from a collection; the pictures themselves are not touched."""
    opened = _open(collection)
    names = None if not ids else [name if "://" in name else _as_uri(name, opened) for name in ids]
    removed = opened.remove(names, where=where, purge=purge)
    if as_json:
        _print_json({"removed": removed})
    else:
        print(f"{opened.path}: removed {removed:,}, {len(opened):,} items left")


def _as_uri(name: str, opened: Collection) -> str:
    """A name given on the command line is an id, or a path that may be relative to the working folder."""
    from mmalign.media.uris import path_to_uri

    return name if opened.has(name) else path_to_uri(Path(os.path.abspath(name)))  # noqa: PTH100 - no symlinks


@app.command()
def models(as_json: JsonOption = False) -> None:
    """List encoders: width, size, licence, whether the weights are here, and how good they are."""
    from mmalign.encoders.catalog import list_models

    cards = list_models()
    if as_json:
        _print_json([card.to_dict() for card in cards])
        return
    _print_table(
        ["encoder", "dim", "size", "licence", "here", "quality"],
        [
            [
                card.spec,
                str(card.dim),
                _size(card.bytes),
                card.licence,
                "yes" if card.cached else "no",
                card.quality or "",
            ]
            for card in cards
        ],
    )


@app.command()
def recipes(as_json: JsonOption = False) -> None:
    """List index designs: what each is for, and what was measured."""
    from mmalign.index.recipe import list_recipes

    found = list_recipes()
    if as_json:
        _print_json([recipe.to_dict() for recipe in found])
        return
    _print_table(["recipe", "factory", "summary"], [[recipe.name, recipe.factory, recipe.summary] for recipe in found])


@app.command()
def doctor(collection: CollectionOption = None, as_json: JsonOption = False) -> None:
    """Check the environment, and a collection where there is one; exit status 1 where something is wrong."""
    from mmalign.doctor import check_collection, check_environment
    from mmalign.locate import locate_collection

    checks = check_environment()
    try:
        path = locate_collection(collection)
    except CollectionNotFoundError:
        path = None
    if path is not None:
        checks += check_collection(path)
    if as_json:
        _print_json([check.to_dict() for check in checks])
    else:
        for check in checks:
            print(f"{'ok  ' if check.ok else 'BAD '} {check.name}: {check.detail}")
            if check.remedy:
                print(f"     -> {check.remedy}")
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for the collection and the contact sheets.")] = Path(
        "mmalign-demo"
    ),
    encoder: EncoderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a collection of the gallery that comes with mmalign, search it, and write contact sheets."""
    from mmalign.demo import run_demo

    results, sheets = run_demo(output, encoder=encoder or "lite", progress=not as_json)
    if as_json:
        _print_json({"results": [result.to_dict() for result in results], "sheets": [str(sheet) for sheet in sheets]})
        return
    for result in results:
        rows = [
            [str(rank), f"{hit.score:.3f}", Path(hit.uri).name, (hit.metadata.get("captions") or [""])[0]]
            for rank, hit in enumerate(result, 1)
        ]
        print(f"\n{result.query}")
        _print_table(["", "score", "picture", "its caption"], rows)
    print("\nMost of the gallery is drawings, lite has seen photographs alone: some hits are wrong. CLIP does better.")
    print("look at: " + "  ".join(str(sheet) for sheet in sheets))


@evaluate_app.command("retrieval")
def eval_retrieval(
    manifest: Annotated[Path, typer.Option(help='A .jsonl file of {"image": path, "captions": [...], "split": ...}.')],
    split: Annotated[str | None, typer.Option(help="Only the pictures of this split.")] = None,
    encoder: EncoderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure text-to-image and image-to-text retrieval, in percent.

    any_hit@k is the share of queries with a right answer among the first k, which CLIP papers call R@k.

    For example:

        mmalign eval retrieval --manifest pictures.jsonl --split dev --encoder lite
    """
    from mmalign.evaluate import evaluate_retrieval

    table = evaluate_retrieval(manifest, split=split, encoder=encoder or "lite", progress=not as_json)
    told = table.to_dict()
    for skip in table.skipped:
        _say(f"skipped {skip.uri}: {skip.reason}")
    if as_json:
        _print_json(told)
        return
    print(f"{told['encoder']} on {told['n_images']:,} pictures with {told['n_captions']:,} captions")
    for direction in ("text_to_image", "image_to_text"):
        values = "   ".join(f"{name} {value:.1f}" for name, value in told[direction].items())
        print(f"{direction.replace('_', '-'):<14} {values}")


# Shared ------------------------------------------------------------------------------------------------------------


def _open(collection: Path | None) -> Collection:
    from mmalign.collection import Collection
    from mmalign.locate import locate_collection

    return Collection.open(locate_collection(collection))


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, default=str))


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*header, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    # A pipe has no width; a table cut to 80 columns would lose what it was asked for.
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 200)
    console.print(table)


def _size(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:,.0f} MB"


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        print(f"mmalign {installed('mmalign')}")
        raise typer.Exit


def main() -> NoReturn:
    """Run the command; errors that mmalign raises on purpose end it with one clear text and status 1."""
    try:
        app()
    except MMAlignError as error:
        _say(f"error: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        _say("stopped; the same command goes on where it was")
        sys.exit(130)
    except BrokenPipeError:
        # The reader of a pipe, such as `head`, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(0)


if __name__ == "__main__":
    main()
