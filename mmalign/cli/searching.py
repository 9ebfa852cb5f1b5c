"""The command that searches, and how its words are told from its options."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from collections.abc import Collection as Names
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer
from typer.core import TyperCommand

from mmalign.cli.gone import gone_note
from mmalign.cli.opening import open_collection, say_which
from mmalign.cli.output import (
    CollectionOption,
    JsonOption,
    PrivateOption,
    media_policy,
    print_json,
    say,
    shows_progress,
)
from mmalign.errors import InputError, SearchInterrupted

if TYPE_CHECKING:
    from mmalign.collection import Collection
    from mmalign.types import Box, Hit, SearchResult

# As options are written: `-k`, `-k5`, `--where`, `--where=...`. A dash before anything else begins words.
_OPTION = re.compile(r"-[A-Za-z]\S*|--[A-Za-z][\w-]*(?:=.*)?", re.DOTALL)


class WordsCommand(TyperCommand):
    """A command whose words may begin with `-`, where they cannot be meant as an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, with the words behind all options."""
        flags, valued = set[str](), set[str]()
        for option in self.get_params(ctx):
            names = [name for name in (*option.opts, *option.secondary_opts) if name.startswith("-")]
            # click knows arguments beside options, which cannot be flags.
            (flags if getattr(option, "is_flag", False) else valued).update(names)
        options, words, unknown = tell_apart(args, flags=flags, valued=valued)
        if unknown is not None:
            ctx.fail(
                f"No such option: {unknown}; words of the query that begin with a dash go behind --: "
                f"mmalign {ctx.info_name} -- {unknown}"
            )
        return super().parse_args(ctx, [*options, "--", *words] if words else options)


def tell_apart(
    args: Sequence[str], *, flags: Names[str], valued: Names[str]
) -> tuple[list[str], list[str], str | None]:
    """Tell the options on a command line from the words between them.

    Args:
        args: What was typed, as the shell took it apart.
        flags: Options without a value.
        valued: Options that take one.

    Returns:
        Options with their values; words, which are what does not look like an option, such as `- leash + dog` or
        `-5°C`, and all behind `--`; and the first of what looks like an option of one letter and is none, or None.
    """
    options: list[str] = []
    words: list[str] = []
    unknown = None
    waiting = list(args)
    while waiting:
        arg = waiting.pop(0)
        if arg == "--":
            words += waiting
            break
        if arg in valued:
            options += [arg, *waiting[:1]]
            del waiting[:1]
        elif arg in flags or _OPTION.fullmatch(arg) or (arg[:2] in valued and arg[2:3].isspace()):
            options.append(arg)
            if arg[1] != "-" and arg[:2] not in flags and arg[:2] not in valued:
                unknown = unknown or arg
        else:
            words.append(arg)
    return options, words, unknown


def search(
    query: Annotated[
        list[str],
        typer.Argument(
            help="Words, a picture's path or URL, or several joined by ' + ' and ' - ', with weights such as '2:dog'. "
            "Several arguments are one query.",
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
    min_score: Annotated[
        float | None,
        typer.Option(help="Leave out hits with a lower score, -1 to 1; scores differ from encoder to encoder."),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="With --min-score: all hits from it on, instead of -k; 10,000 at most.")
    ] = False,
    offset: Annotated[int, typer.Option(help="Leave out so many of the best hits; -k counts those after them.")] = 0,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Show where in each picture the words are. Takes up to a few seconds a picture.",
        ),
    ] = False,
    rerank: Annotated[
        str | None,
        typer.Option(
            metavar="relations[:N]",
            help="Where the words say where things are, such as 'a dog left of a bicycle', put the best N pictures "
            "(20) in order by that too. Takes up to a few seconds a picture.",
        ),
    ] = None,
    view: Annotated[
        str | None,
        typer.Option(metavar="image|captions", help="What to search: the pictures, or what is said of them."),
    ] = None,
    captions: Annotated[
        bool, typer.Option("--captions", help="Find captions instead of pictures; as --view captions.")
    ] = False,
    group_by: Annotated[
        str | None,
        typer.Option(metavar="item", help="With --captions: one hit an item, that of its nearest caption."),
    ] = None,
    copies: Annotated[
        bool, typer.Option("--copies", help="Show identical files one by one, instead of the oldest for all of them.")
    ] = False,
    collection: CollectionOption = None,
    paths_only: Annotated[bool, typer.Option("--paths-only", help="Print paths alone, one a line.")] = False,
    contact_sheet: Annotated[
        Path | None, typer.Option(help="Also write the hits as a picture (.png) or a page (.html).")
    ] = None,
    allow_private: PrivateOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find pictures by words, by a picture, or by both; exit status 1 where nothing is found.

    For example:

        mmalign search two dogs playing in the snow

        mmalign search "2:dog + beach.jpg - leash" -k 5 --contact-sheet hits.png

        mmalign search sunset --where "width > height" --paths-only

        mmalign search two dogs playing in the snow --min-probability 0.5

        mmalign search photo.jpg --min-score 0.9 --all

        mmalign search a dog left of a bicycle --rerank relations --explain

        mmalign search photo.jpg --captions
    """
    if captions and view not in (None, "captions"):
        raise InputError(f"--captions and --view {view} name two views; give one of them")
    if captions or view == "captions":
        _check_captions(
            "--captions" if captions else "--view captions",
            explain=explain,
            rerank=rerank,
            copies=copies,
            min_probability=min_probability,
            page=min_score is not None or every or bool(offset),
        )
    elif group_by is not None and view in (None, "image"):
        raise InputError("pictures are one hit each; leave out --group-by without --captions")
    # Whether there is such a view is told by the search.
    if every and min_score is None and view in (None, "image"):
        raise InputError("--all gives all hits from --min-score on; give that too, or say how many hits with -k")
    opened = open_collection(collection)
    words = " ".join(query)
    policy = media_policy(allow_private=allow_private)
    shown = _Shown(
        lambda: _say_where_from(query, opened, collection),
        paths_only=paths_only,
        quiet=as_json,
        ordered=rerank is not None and _says_where(words),
        before=offset,
    )
    stopped = False
    try:
        result = opened.search(
            words,
            k=None if every else k,
            where=where,
            min_recall=min_recall,
            min_probability=min_probability,
            min_score=min_score,
            offset=offset,
            explain=explain,
            rerank=rerank,
            on_hit=shown.come if explain or rerank else None,
            progress=shows_progress(as_json),
            copies=copies,
            view=cast("Literal['image', 'captions']", "captions" if captions else view or "image"),
            group_by=cast("Literal['item'] | None", group_by),
            policy=policy,
        )
    except SearchInterrupted as stop:
        stopped, result = True, stop.results[0]
    result = _with_gone(result, opened)
    if contact_sheet is not None:
        from mmalign.cli.contact_sheet import write_contact_sheet

        say(f"wrote {write_contact_sheet([result], contact_sheet)}")
    if as_json:
        # What was asked for, where it was.
        asked = {"min_score": min_score, "offset": offset or None}
        print_json(result.to_dict() | {name: value for name, value in asked.items() if value is not None})
    else:
        shown.rest(result)
    if stopped:
        looked = sum(hit.regions is not None for hit in result)
        say(f"stopped; {looked} of {len(result)} hits show where the words are")
        raise typer.Exit(130)
    if not result.hits:
        raise typer.Exit(1)


def _check_captions(
    asked: str, *, explain: bool, rerank: str | None, copies: bool, min_probability: float | None, page: bool
) -> None:
    """Refuse options about pictures, by the names that they have on the command line, as `asked` is one."""
    if copies:
        raise InputError(f"captions of identical files are hits of their own; leave out --copies with {asked}")
    if explain:
        raise InputError(f"--explain looks for words in pictures; leave it out with {asked}")
    if rerank is not None:
        raise InputError(f"--rerank looks for words in pictures; leave it out with {asked}")
    if page:
        raise InputError(f"--min-score, --all and --offset are for pictures; leave them out with {asked}")
    if min_probability is not None:
        raise InputError(f"--min-probability was measured for pictures; leave it out with {asked}")


def _say_where_from(query: Sequence[str], opened: Collection, collection: Path | None) -> None:
    """Say which collection answers, and that one among the words was taken as words: other tools would search in it."""
    from mmalign.collection import FILE

    say_which(opened, collection)
    for word in query:
        if collection is None and word.rstrip("/").endswith(".mm") and (Path(word) / FILE).is_file():
            say(f"note: {word} is taken as words of the query; to search in it: --collection {word}")


def _with_gone(result: SearchResult, opened: Collection) -> SearchResult:
    note = gone_note([hit.uri for hit in result], what="files of these hits", collection=opened.path)
    return result if note is None else replace(result, notes=(*result.notes, note))


def _says_where(words: str) -> bool:
    from mmalign.collection import places_in
    from mmalign.search import Query

    return bool(places_in(Query(words)))


class _Shown:
    """Prints hits: some while others are still looked at, the rest when all is known.

    Args:
        begin: Called before anything is printed.
        paths_only: Print paths alone.
        quiet: Print nothing before all is known.
        ordered: Whether the order of the hits is not known before all were looked at.
        before: How many hits come before the first.
    """

    def __init__(
        self, begin: Callable[[], None], *, paths_only: bool, quiet: bool, ordered: bool, before: int = 0
    ) -> None:
        self._begin: Callable[[], None] | None = begin
        self._paths_only, self._quiet, self._ordered = paths_only, quiet, ordered
        self._before = before
        self._printed = 0
        self._width = max(2, len(str(before + 1)))

    def come(self, hit: Hit) -> None:
        """A hit that was looked at: a result where its place among the others is known, else a remark."""
        if self._quiet:
            return
        self._began()
        if self._ordered:
            what = "; ".join(f"{region.phrase} {_box(region.box)}" for region in hit.regions or ())
            say(f"looked at {hit.uri or hit.id}: {what or 'none of the words'}")
            return
        self._printed += 1
        self._print(self._printed, hit)

    def rest(self, result: SearchResult) -> None:
        """What was not printed yet: remarks, and the other hits."""
        self._began()
        for note in result.notes:
            say(f"note: {note}")
        if not result.hits and not self._paths_only:
            print("nothing found")
        if not self._printed:
            self._width = len(str(self._before + len(result)))
        for rank, hit in enumerate(result, 1):
            if rank > self._printed:
                self._print(rank, hit)

    def _began(self) -> None:
        if self._begin is not None:
            self._begin()
            self._begin = None

    def _print(self, rank: int, hit: Hit) -> None:
        if self._paths_only:
            print(hit.uri, flush=True)
            return
        likely = "" if hit.probability is None else f"{hit.probability:>4.0%}  "
        more = len(hit.copies)
        alike = f"  (+{more:,} cop{'y' if more == 1 else 'ies'})" if more else ""
        print(f"{self._before + rank:>{self._width}}.  {hit.score:.3f}  {likely}{hit.uri or hit.id}{alike}")
        indent = f"{'':>{self._width}}          {' ' * len(likely)}"
        for caption in (hit.metadata.get("captions") or [])[:1]:
            print(f"{indent}{caption}")
        for region in hit.regions or ():
            print(f"{indent}{region.phrase}: {_box(region.box)}  {region.score:.0%}")
        # A person looks at the first ones while the others are looked through.
        print(end="", flush=True)


def _box(box: Box) -> str:
    return f"[{', '.join(f'{edge:.0f}' for edge in box.to_list())}]"
