"""The measured tables as commands: `mmalign eval ...`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmalign.cli.output import EncoderOption, Group, JsonOption, print_json, print_table, say_skipped, shows_progress

if TYPE_CHECKING:
    from mmalign.types import Skip

app = typer.Typer(cls=Group, no_args_is_help=True, help="Measure how good an encoder is on your own data.")

SplitOption = Annotated[str | None, typer.Option(help="Only the pictures of this split.")]


@app.command("retrieval")
def eval_retrieval(
    manifest: Annotated[Path, typer.Option(help='A .jsonl file of {"image": path, "captions": [...], "split": ...}.')],
    split: SplitOption = None,
    encoder: EncoderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure text-to-image and image-to-text retrieval, in percent.

    any_hit@k is the share of queries with a right answer among the first k, which CLIP papers call R@k.

    For example:

        mmalign eval retrieval --manifest pictures.jsonl --split dev --encoder lite
    """
    from mmalign.evaluation import evaluate_retrieval

    table = evaluate_retrieval(manifest, split=split, encoder=encoder or "lite", progress=shows_progress(as_json))
    payload = table.to_dict()
    if _print_json_if_asked(payload, table.skipped, as_json=as_json):
        return
    print(f"{payload['encoder']} on {payload['n_images']:,} pictures with {payload['n_captions']:,} captions")
    for direction in ("text_to_image", "image_to_text"):
        values = "   ".join(f"{name} {value:.1f}" for name, value in payload[direction].items())
        print(f"{direction.replace('_', '-'):<14} {values}")


@app.command("pairs")
def eval_pairs(
    manifest: Annotated[
        Path,
        typer.Option(
            help='A .jsonl file of {"image": path, "hard_negatives": [{"type", "caption", "negative"}], "split": ...}.'
        ),
    ],
    split: SplitOption = None,
    encoder: EncoderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how often a true caption beats its wrong twin (SugarCrepe), in percent.

    A tie counts as wrong; a coin reaches 50. The interval covers 95% and is drawn over pictures.

    For example:

        mmalign eval pairs --manifest pictures.jsonl
    """
    from mmalign.evaluation import evaluate_pairs

    table = evaluate_pairs(manifest, split=split, encoder=encoder or "lite", progress=shows_progress(as_json))
    payload = table.to_dict()
    if _print_json_if_asked(payload, table.skipped, as_json=as_json):
        return
    print(f"{payload['encoder']} on {payload['n_images']:,} pictures with {payload['n_pairs']:,} pairs")
    scores = {**payload["by_type"], "overall": payload["overall"]}
    print_table(
        ["type", "pairs", "accuracy", "95% interval", "chance"],
        [
            [name, f"{score['n_pairs']:,}", f"{score['accuracy']:.1f}", _interval(score["interval_95"]), "50.0"]
            for name, score in scores.items()
        ],
    )


@app.command("classes")
def eval_classes(
    manifest: Annotated[Path, typer.Option(help='A .jsonl file of {"image": path, "label": name, "split": ...}.')],
    split: SplitOption = None,
    encoder: EncoderOption = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            help='What to put the class name into, in the place of {}; give several to average. Default: "a photo of '
            'a {}".'
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure search by class name, and zero-shot classification, in percent.

    precision@10 is the share of right pictures among the first 10, or among as many as the class has where those are
    fewer. Ties count as wrong. The intervals cover 95% and are drawn over classes, and over pictures.

    For example:

        mmalign eval classes --manifest pictures.jsonl --prompt "a photo of a {}" --prompt "{}"
    """
    from mmalign.evaluation import PROMPTS, evaluate_classes

    table = evaluate_classes(
        manifest, split=split, encoder=encoder or "lite", prompts=prompt or PROMPTS, progress=shows_progress(as_json)
    )
    payload = table.to_dict()
    if _print_json_if_asked(payload, table.skipped, as_json=as_json):
        return
    print(f"{payload['encoder']} on {payload['n_images']:,} pictures of {payload['n_classes']:,} classes")
    print_table(
        ["", "figure", "value", "95% interval", "chance"],
        [
            [
                direction.replace("_", "-"),
                name,
                f"{value:.1f}",
                _interval(payload["interval_95"][direction].get(name)),
                f"{payload['chance'][direction][name]:.1f}",
            ]
            for direction in ("class_to_image", "image_to_class")
            for name, value in payload[direction].items()
        ],
    )


@app.command("align")
def eval_align(
    manifest: Annotated[
        Path,
        typer.Option(
            help='A .jsonl file of {"image": path, "phrases": [{"phrase", "box": [x, y, w, h]}], "captions": [...], '
            '"split": ...}.'
        ),
    ],
    split: SplitOption = None,
    encoder: EncoderOption = None,
    solver: Annotated[str, typer.Option(help="argmax, hungarian or graph; all are measured.")] = "graph",
    regions: Annotated[
        str,
        typer.Option(
            help="proposals; given, for all true boxes of the picture; or a detector such as "
            "torchvision:fasterrcnn_resnet50_fpn_v2."
        ),
    ] = "proposals",
    head: Annotated[str, typer.Option(help="auto, or none to leave the learned head out.")] = "auto",
    absent: Annotated[bool, typer.Option("--absent", help="Also look for a phrase that is not there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure how well phrases are found in pictures, in percent.

    r@k is the share of phrases with a box among the first k that overlaps a true one by half; pointing asks whether
    the peak of the heat map lies in a true box. The phrases of one caption are matched together.

    For example:

        mmalign eval align --manifest pictures.jsonl --split dev --regions given
    """
    from mmalign.evaluation import evaluate_grounding

    table = evaluate_grounding(
        manifest,
        split=split,
        encoder=encoder or "lite",
        solver=solver,  # type: ignore[arg-type]
        regions=regions,
        head=head,  # type: ignore[arg-type]
        absent=absent,
        progress=shows_progress(as_json),
    )
    payload = table.to_dict()
    if _print_json_if_asked(payload, table.skipped, as_json=as_json):
        return
    how = payload["settings"]
    print(
        f"{how['encoder']} {'with' if how['head'] else 'without'} its head, regions: {how['regions']}; "
        f"{payload['n_phrases']:,} phrases of {payload['n_images']:,} pictures"
    )
    names = ("r@1", "r@5", "r@10", "r@1_merged", "unmatched")
    print_table(
        ["solver", *names],
        [[name, *(f"{found[column]:.1f}" for column in names)] for name, found in payload["by_solver"].items()],
    )
    for name, gain in payload["over_argmax"].items():
        print(f"r@1 of {name} over argmax: {gain['r@1']:+.2f} ({_interval(gain['interval_95'])})")
    trivial = payload["trivial"]
    print(f"pointing {payload['pointing']:.1f} ({_interval(payload['interval_95']['pointing'])})")
    print(
        f"for comparison: the whole picture r@1 {trivial['whole_image']:.1f}, a region at random "
        f"{payload['chance']:.1f}, pointing at the centre {trivial['center_pointing']:.1f}"
    )
    if "absent" in payload:
        print(f"telling absent phrases: AUROC {payload['absent']['auroc']:.1f}")
        for rate, found in payload["absent"]["at_false_link_rate"].items():
            print(
                f"threshold for {rate}% false links: {found['kept']:.1f}% of the present kept, "
                f"{found['false_links']:.1f}% of the absent linked"
            )


def _print_json_if_asked(payload: Mapping[str, Any], skipped: Sequence[Skip], *, as_json: bool) -> bool:
    """Print what every table starts with: all of it as JSON, else the pictures that were left out."""
    if as_json:
        print_json({**payload, "skipped": [{"uri": skip.uri, "reason": skip.reason} for skip in skipped]})
    else:
        say_skipped(skipped)
    return as_json


def _interval(bounds: Sequence[float] | None) -> str:
    return "" if bounds is None else f"{bounds[0]:.1f} to {bounds[1]:.1f}"
