"""Training as commands: `mmalign train ...`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mmalign.cli.output import EncoderOption, Group, JsonOption, print_json, say, shows_progress
from mmalign.errors import TrainingInterrupted
from mmalign.utils import track_several

app = typer.Typer(
    cls=Group, no_args_is_help=True, help="Train an encoder, or a captioner, on your own pictures and words."
)


@app.command("contrastive")
def train_contrastive(
    config: Annotated[Path, typer.Option(help="A TOML file: what to train, on what, how; see docs/training.md.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, log.jsonl and the exported weights.")],
    manifest: Annotated[
        Path | None,
        typer.Option(help='Stands for data.manifest: a .jsonl file of {"image", "captions", "split"}.'),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for frozen features, which runs may share. Default: OUT/cache.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ... Default: CUDA where there is one.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train an encoder to bring pictures and their captions together.

    Run it again with the same --out: a run that was stopped goes on where it was.

    For example:

        mmalign train contrastive --config lite.toml --out runs/first
    """
    from mmalign.training import read_config, train_contrastive

    with track_several(enabled=shows_progress(as_json)) as progress:
        try:
            report = train_contrastive(
                read_config(config, manifest=manifest),
                out,
                cache=cache,
                device=device,
                progress=progress,
                log=None if as_json else _print_record,
            )
        except TrainingInterrupted as stop:
            say(str(stop))
            raise typer.Exit(130) from None
    if as_json:
        print_json(report.to_dict())
        return
    for skipped in report.data.get("skipped", ()):
        say(f"skipped {skipped}")
    print(f"best epoch: {report.best['epoch']} of {report.epochs}, sum of recalls {report.best['sum']:.1f}")
    print(f"weights: {report.exported}")


@app.command("captioner")
def train_captioner(
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, log.jsonl and the exported decoder.")],
    text: Annotated[list[Path] | None, typer.Option(help="A file of sentences, one a line; may be repeated.")] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(help='Pictures with captions, learnt from as well: a .jsonl of {"image", "captions", "split"}.'),
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Splits of the manifest to learn from. Default: train.")
    ] = None,
    collection: Annotated[
        list[Path] | None,
        typer.Option(
            help="A collection whose captioned pictures are learnt from as well, by their stored embeddings; may be "
            "repeated."
        ),
    ] = None,
    dev_split: Annotated[
        str | None,
        typer.Option(
            help="Split of the manifest that is measured on and chooses the best epoch. Default: one in twenty of the "
            "captioned pictures, or of the sentences."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file of all settings; see docs/caption-model.md. Options come on top.")
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="Whose embeddings the decoder reads. Default: lite.")] = None,
    language_model: Annotated[
        str | None,
        typer.Option(
            help="hf:NAME_OR_PATH: train a soft prefix that tells this language model of the picture, instead of a "
            "decoder. The model itself stays as it is."
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Default: 4.")] = None,
    seed: Annotated[int | None, typer.Option(help="Default: 0.")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for embeddings, which runs may share. Default: OUT/cache.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ... Default: CUDA where there is one.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a decoder that writes captions from an encoder's embeddings and from retrieved captions.

    Text alone is enough: each sentence's own embedding, with noise, stands for its picture. Run it again with the
    same --out: a run that was stopped goes on where it was.

    For example:

        mmalign train captioner --text captions.txt --encoder lite --out runs/captioner

        mmalign train captioner --collection captioned.mm --text captions.txt --out runs/mine

        mmalign caption photo.jpg --mode runs/captioner

        mmalign train captioner --text captions.txt --language-model hf:models/smollm2 --out runs/prefix
    """
    from mmalign.training import read_captioner_config, train_captioner

    options: dict[str, Any] = {"encoder": encoder, "epochs": epochs, "seed": seed, "language_model": language_model}
    data: dict[str, Any] = {
        "text": [str(path) for path in text] if text else None,
        "collections": [str(path) for path in collection] if collection else None,
    }
    if manifest is not None:
        data["pairs"] = [{"manifest": str(manifest), "splits": split or ["train"]}]
        data["dev"] = {"manifest": str(manifest), "splits": [dev_split]} if dev_split else None
    chosen = read_captioner_config(config, options=options, data=data)
    with track_several(enabled=shows_progress(as_json)) as progress:
        try:
            report = train_captioner(
                chosen,
                out,
                cache=cache,
                device=device,
                progress=progress,
                log=None if as_json else _print_captioner_record,
            )
        except TrainingInterrupted as stop:
            say(str(stop))
            raise typer.Exit(130) from None
    if as_json:
        print_json(report.to_dict())
        return
    cider = f", CIDEr {report.best['cider']:.1f}" if "cider" in report.best else ""
    print(f"best epoch: {report.best['epoch']} of {report.epochs}, nats a token {report.best['nats']:.3f}{cider}")
    print(f"decoder: {report.exported} (SHA-256 {report.sha256})")


@app.command("grounding")
def train_grounding(
    manifest: Annotated[
        Path, typer.Option(help='A .jsonl file of {"image", "phrases": [{"phrase", "box"}], "captions", "split"}.')
    ],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and the weight file.")],
    split: Annotated[str, typer.Option(help="The split to learn from.")] = "train",
    tune: Annotated[
        Path | None, typer.Option(help="Another such file; scores and probabilities are fitted on one half of it.")
    ] = None,
    encoder: EncoderOption = None,
    cache: Annotated[Path | None, typer.Option(help="Folder for features. Default: OUT/cache.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the pictures.")] = 10,
    most: Annotated[int | None, typer.Option(min=1, help="Learn from so many pictures at most.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train the head that finds phrases in pictures, on phrases with boxes.

    Run it again with the same --out to go on where it stopped. Features that were computed are not computed again,
    with another --out neither where --cache is the same.

    For example:

        mmalign train grounding --manifest pictures.jsonl --out runs/head --tune other.jsonl
    """
    from mmalign.training import HeadTraining, train_grounding

    try:
        report = train_grounding(
            manifest,
            out,
            split=split,
            tune=tune,
            encoder=encoder or "lite",
            cache=cache,
            how=HeadTraining(epochs=epochs),
            most=most,
            progress=shows_progress(as_json),
            log=(lambda record: None) if as_json else (lambda record: print(json.dumps(record), flush=True)),
        )
    except TrainingInterrupted as stop:
        say(str(stop))
        raise typer.Exit(130) from None
    if as_json:
        print_json(report.to_dict())
        return
    print(f"learnt from {report.phrases:,} phrases of {report.pictures:,} pictures")
    print(f"head: {report.path} (SHA-256 {report.sha256})")


def _print_captioner_record(record: Mapping[str, Any]) -> None:
    if record.get("event") != "epoch":
        counts = ", ".join(f"{name} {value}" for name, value in record["data"].items())
        say(f"{record['event']}: {record['parameters']} parameters, {counts}")
        return
    if "cider" in record:
        measured = f"CIDEr {record['cider']:.2f}   BLEU-4 {record['bleu4']:.2f}"
    else:
        measured = f"without the prefix {record['nats_without']:.4f}"
    print(
        f"epoch {record['epoch']:>3}   loss {record['loss']:.4f}   nats a token {record['nats']:.4f}   {measured}   "
        f"{record['seconds']:.0f} s",
        flush=True,
    )


def _print_record(record: Mapping[str, Any]) -> None:
    if record.get("event") != "epoch":
        say(f"{record['event']}: {', '.join(f'{n} {v}' for n, v in record['data'].items() if n != 'skipped')}")
        return
    recalls = "   ".join(f"{name} {record[name]:.2f}" for name in record if "@" in name)
    # A run of no epochs has learnt nothing, and so has no loss.
    loss = f"loss {record['loss']:.4f}   " if "loss" in record else ""
    print(
        f"epoch {record['epoch']:>3}   {loss}{recalls}   sum {record['sum']:.1f}   {record['seconds']:.0f} s",
        flush=True,
    )
