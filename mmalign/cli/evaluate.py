"""The measured tables as commands: `mmalign eval ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmalign.cli.output import EncoderOption, JsonOption, print_json, say_skipped

app = typer.Typer(no_args_is_help=True, help="Measure how good an encoder is on your own data.")


@app.command("retrieval")
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
    from mmalign.evaluation.retrieval import evaluate_retrieval

    table = evaluate_retrieval(manifest, split=split, encoder=encoder or "lite", progress=not as_json)
    told = table.to_dict()
    say_skipped(table.skipped)
    if as_json:
        print_json(told)
        return
    print(f"{told['encoder']} on {told['n_images']:,} pictures with {told['n_captions']:,} captions")
    for direction in ("text_to_image", "image_to_text"):
        values = "   ".join(f"{name} {value:.1f}" for name, value in told[direction].items())
        print(f"{direction.replace('_', '-'):<14} {values}")
