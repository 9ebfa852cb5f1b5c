"""The command that says which words of a sentence are where in a picture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmalign.cli.output import EncoderOption, JsonOption, print_fact, print_json, print_table, say
from mmalign.errors import InputError

if TYPE_CHECKING:
    from mmalign.alignment import Alignment
    from mmalign.types import Box, Relation

# Of the picture; a box that covers as much is in no part of it.
_NEARLY_ALL = 0.7
_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


def align(
    image: Annotated[str, typer.Argument(help="A picture's path or URL.")],
    sentence: Annotated[str, typer.Argument(help="What the picture is said to show.")],
    solver: Annotated[
        str,
        typer.Option(
            help="graph weighs what the sentence says of places (left of, on, ...), hungarian gives no region twice, "
            "argmax takes each phrase alone."
        ),
    ] = "graph",
    regions: Annotated[
        str,
        typer.Option(
            help="Where to look: proposals (no model needed), or a detector such as "
            "torchvision:fasterrcnn_resnet50_fpn_v2 or hf:google/owlvit-base-patch32."
        ),
    ] = "proposals",
    box: Annotated[
        list[str] | None, typer.Option(help="A region of your own in pixels, X,Y,WIDTH,HEIGHT; instead of --regions.")
    ] = None,
    phrase: Annotated[
        list[str] | None, typer.Option(help="A phrase to look for, in any language; instead of those that are found.")
    ] = None,
    relation: Annotated[
        list[str] | None,
        typer.Option(
            help="What is said of the places of phrases, by their numbers from 1, such as '1 left of 2' or '3 between "
            "1 and 2'; instead of what the sentence says."
        ),
    ] = None,
    encoder: EncoderOption = None,
    head: Annotated[str, typer.Option(help="auto, or none to leave the learned head out.")] = "auto",
    parser: Annotated[
        str, typer.Option(help="How the sentence is taken apart: auto, rules, spacy or spacy:MODEL.")
    ] = "auto",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also draw it: a .png, .jpg or .webp file.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say why each phrase is where it is.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say which phrase of a sentence is where in a picture, or that it is not there.

    Pixels are x and y of the upper left corner, then width x height. The probability is that of the place (the box and
    those much like it), given where the other phrases are; "there" is how likely the phrase is in the picture at all,
    where that was measured. Phrases are numbered from 1; only in --json, which is for programs, indices begin with 0.

    For example:

        mmalign align street.jpg "a dog left of a red bicycle" -o aligned.png

        mmalign align street.jpg "a dog by a bicycle" --explain --solver argmax

        mmalign align street.jpg "狗在自行车旁" --phrase 狗 --phrase 自行车
    """
    # Before anything is computed: a wrong suffix should not cost a minute.
    if output is not None and output.suffix.lower() not in _SUFFIXES:
        raise InputError(f"a drawing is a {', '.join(sorted(_SUFFIXES))} file, got {str(output)!r}")
    if output is not None and output.is_dir():
        raise InputError(f"{str(output)!r} is a folder; name the file that the drawing goes to")
    if box and regions != "proposals":
        raise InputError("--box names the regions, and so does --regions; give one of them")
    given = [parse_box(text) for text in box or ()]
    relations = None if relation is None else [parse_relation(text) for text in relation]
    if relation:
        _check_numbers(relation, relations or (), phrase or _phrases_of(sentence, parser))
    from mmalign.alignment import Aligner
    from mmalign.media import decode_image

    picture = decode_image(image).image
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
    aligner = Aligner(encoder or "lite", head=head, parser=parser)  # type: ignore[arg-type]
    found = aligner.align(
        picture,
        sentence,
        solver=solver,  # type: ignore[arg-type]
        regions=given or regions,
        phrases=phrase,
        relations=relations,
    )
    if output is not None:
        # Letters suffer from the usual quality of JPEG.
        found.draw(picture).save(output, quality=92)
        say(f"wrote {output}")
    explanations = [found.explain(index) for index in range(len(found.phrases))] if explain else []
    if as_json:
        payload = found.to_dict()
        print_json(payload | ({"explanations": [each.to_dict() for each in explanations]} if explain else {}))
        return
    for note in found.notes:
        say(f"note: {note}")
    print_links(found, picture.size)
    for each in explanations:
        print()
        for line in f"{each.phrase + 1}. {each.text}".splitlines():
            print_fact("", line, column=0)


def parse_box(text: str) -> Box:
    """Read a box as it is written on the command line.

    Args:
        text: `X,Y,WIDTH,HEIGHT`, in pixels.

    Returns:
        The box.

    Raises:
        InputError: Not four numbers, or a width or height of 0 or less.
    """
    from mmalign.types import Box

    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"a box is X,Y,WIDTH,HEIGHT in pixels, such as 10,20,64,48, got {text!r}") from error
    return Box(x, y, width, height)


def parse_relation(text: str) -> Relation:
    """Read a relation as it is written on the command line.

    Args:
        text: Two phrases by their numbers from 1 with what is said between them, or three for `between`.

    Returns:
        The relation, with indices from 0.

    Raises:
        InputError: It has another form, or names a phrase 0.
    """
    from mmalign.types import Relation

    match = re.fullmatch(r"\s*(\d+)\s+(\D+?)\s+(\d+)(?:\s+and\s+(\d+))?\s*", text)
    if match is None:
        raise InputError(f"a relation is like '1 left of 2' or '3 between 1 and 2', got {text!r}")
    subject, kind, *objects = match.groups()
    numbers = [int(each) for each in (subject, *objects) if each is not None]
    if 0 in numbers:
        raise InputError(f"phrases are numbered from 1: a relation is like '1 left of 2', got {text!r}")
    return Relation(numbers[0] - 1, tuple(number - 1 for number in numbers[1:]), " ".join(kind.split()))


def _phrases_of(sentence: str, parser: str) -> list[str]:
    from mmalign.parsing import parse_sentence

    return [phrase.text for phrase in parse_sentence(sentence, parser=parser).phrases]


def _check_numbers(texts: Sequence[str], relations: Sequence[Relation], phrases: Sequence[str]) -> None:
    """Refuse numbers of phrases that are not there, in the numbers that were typed."""
    known = ", ".join(f"{number} {phrase!r}" for number, phrase in enumerate(phrases, 1)) or "none"
    for text, relation in zip(texts, relations, strict=True):
        unknown = [index + 1 for index in (relation.subject, *relation.objects) if index >= len(phrases)]
        if unknown:
            raise InputError(f"--relation {text!r} names phrase {unknown[0]}; the phrases are: {known}")


def print_links(found: Alignment, size: tuple[int, int]) -> None:
    """Print where each phrase is.

    Args:
        found: The alignment.
        size: Width and height of the picture, in pixels.
    """
    if not found.phrases:
        print("nothing to look for")
        return
    rows = []
    for index, phrase in enumerate(found.phrases):
        links = [link for link in found.links if link.phrase == index]
        there = "" if found.existence is None else f"{found.existence[index]:.0%}"
        for link in links:
            box = found.regions[link.region].box
            x, y, width, height = (f"{value:.0f}" for value in box.to_list())
            score = "" if found.similarity is None else f"{found.similarity[index, link.region]:.2f}"
            pixels = f"{x}, {y}, {width} x {height}"
            probability = f"{found.probability(link):.0%}"
            rows.append([str(index + 1), phrase.text, in_words(box, size), pixels, score, probability, there])
        if not links:
            rows.append([str(index + 1), phrase.text, "not found", "", "", "", there])
    print_table(["", "phrase", "where", "pixels", "score", "probability", "there"], rows, wraps=1)
    matched = len(found.phrases) - len(found.unmatched_phrases)
    ending = "" if found.converged else ", stopped at its limit"
    print(
        f"{matched} of {len(found.phrases)} phrases found in {sum(found.seconds.values()):.2f} s "
        f"({found.solver}{ending}; worth {found.objective:.2f})"
    )


def in_words(box: Box, size: tuple[int, int]) -> str:
    """Say in words where a box lies in a picture.

    Args:
        box: The box, in pixels.
        size: Width and height of the picture.

    Returns:
        Such as `top left`, `middle` or `nearly all of it`.
    """
    if box.area > _NEARLY_ALL * size[0] * size[1]:
        return "nearly all of it"
    down = _third(box.y + box.height / 2, size[1], ("top", "", "bottom"))
    across = _third(box.x + box.width / 2, size[0], ("left", "", "right"))
    return f"{down} {across}".strip() or "middle"


def _third(place: float, whole: int, names: tuple[str, str, str]) -> str:
    return names[min(2, max(0, int(3 * place / whole)))]
