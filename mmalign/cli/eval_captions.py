"""`mmalign eval text` and `mmalign eval caption`: how good captions are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmalign.cli.output import EncoderOption, JsonOption, print_json, print_table, say, say_skipped, shows_progress
from mmalign.errors import ModelUnavailableError, SourceError, StorageError

if TYPE_CHECKING:
    from mmalign.captioning import Decoder
    from mmalign.evaluation import CaptionsTable


def eval_text(
    references: Annotated[
        Path,
        typer.Option(
            help='What people wrote: a .jsonl file of {"id": name, "captions": [...]}, or a manifest of '
            '{"image": path, "captions": [...]}.'
        ),
    ],
    candidates: Annotated[
        Path, typer.Option(help='What is judged: a .jsonl file of {"id": name, "caption": text}, or with "image".')
    ],
    split: Annotated[str | None, typer.Option(help="Only the references of this split.")] = None,
    frequencies: Annotated[
        Path | None,
        typer.Option(help="Word weights for CIDEr that --write-frequencies wrote, instead of those of the references."),
    ] = None,
    write_frequencies: Annotated[
        Path | None, typer.Option(help="Write the word weights of these references to a file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Score captions or translations against what people wrote: CIDEr-D, BLEU-1 to 4 and ROUGE-L, times 100.

    The figures are those of the COCO evaluation, without Java: Penn Treebank tokens, corpus BLEU with the closest
    reference length and no smoothing. CIDEr weighs words by how few pictures they are said of, so figures of two sets
    compare only where they have the same pictures, or the same --frequencies.

    For example:

        mmalign eval text --references people.jsonl --candidates program.jsonl

    with lines such as {"id": "1", "captions": ["A dog runs.", "A running dog."]} in the one file and
    {"id": "1", "caption": "A dog is running."} in the other, for two pictures or more.
    """
    from mmalign.metrics import FIGURES, DocumentFrequencies, caption_tokens, score_captions

    wanted = {
        name: own
        for name, fields in _read_lines(references, split).items()
        if (own := _texts(fields, "captions", references, name))
    }
    generated = {
        name: _texts({"captions": [fields.get("caption")]}, "captions", candidates, name)[0]
        for name, fields in _read_lines(candidates, None).items()
    }
    _check_same(wanted, generated)
    weights = None if frequencies is None else DocumentFrequencies.read(frequencies)
    if write_frequencies is not None:
        counted = DocumentFrequencies.of([[caption_tokens(text) for text in texts] for texts in wanted.values()])
        try:
            counted.write(write_frequencies)
        except OSError as error:
            raise StorageError(f"cannot write --write-frequencies {write_frequencies}: {error}") from error
        say(f"wrote the weights of the words of {counted.documents:,} pictures to {write_frequencies}")
    scores = score_captions([generated[name] for name in wanted], list(wanted.values()), frequencies=weights).to_dict()
    if as_json:
        print_json(scores)
        return
    print(f"{scores['n']:,} captions, {sum(map(len, wanted.values())):,} references")
    print_table(list(FIGURES), [[f"{scores[name]:.1f}" for name in FIGURES]])


def eval_caption(
    manifest: Annotated[Path, typer.Option(help='A .jsonl file of {"image": path, "captions": [...], "split": ...}.')],
    datastore: Annotated[
        list[Path],
        typer.Option(
            help="Where captions are retrieved from: a manifest.jsonl, or a text file with a caption a line; may be "
            "repeated."
        ),
    ],
    split: Annotated[str | None, typer.Option(help="Only the pictures of this split.")] = None,
    datastore_split: Annotated[
        str | None, typer.Option(help="Only the captions of this split of the datastore's manifests.")
    ] = None,
    encoder: EncoderOption = None,
    decoder: Annotated[
        str, typer.Option(help="What writes captions: lite, the path of a trained decoder, or none.")
    ] = "lite",
    hf: Annotated[
        str | None,
        typer.Option(help="Also a language model that is prompted with retrieved captions: hf:NAME_OR_PATH."),
    ] = None,
    k: Annotated[int, typer.Option("--context", help="Captions retrieved for a picture.", min=1)] = 150,
    floor: Annotated[float | None, typer.Option(help="Least cosine of a retrieved caption.")] = None,
    diversity: Annotated[
        float, typer.Option(help="0: the nearest captions; towards 1: captions unlike one another (MMR).", min=0, max=1)
    ] = 0.0,
    twins: Annotated[
        float,
        typer.Option(
            help="Of text files, leave captions out that are like a reference by this much, 0 to 1, since they may be "
            "of the same picture; 0 keeps all.",
            min=0,
            max=1,
        ),
    ] = 0.8,
    clip: Annotated[bool, typer.Option("--clip-score", help="Also CLIPScore and RefCLIPScore by the encoder.")] = False,
    out: Annotated[Path | None, typer.Option(help="A .jsonl file for what each rung said of each picture.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure captions in every way there is, from the most frequent caption to what people write, times 100.

    frequency: the datastore's most frequent caption. nearest: the retrieved caption that is nearest. consensus: the
    one that the other retrieved ones agree with. decoder: written from picture and retrieved captions;
    decoder_no_retrieval without them, decoder_random with captions drawn by chance. hf: a language model. human: each
    person against the others, with one reference fewer. The intervals cover 95%, drawn over pictures.

    A picture's own captions are never retrieved. Embeddings of the datastore are kept in the user's cache folder
    ($MMALIGN_CACHE to change it): the first run takes a minute for 10,000 captions or so, later ones none.

    For example:

        mmalign eval caption --manifest pictures.jsonl --split dev --datastore pictures.jsonl --datastore-split train

        mmalign eval caption --manifest aerial.jsonl --datastore aerial-captions.txt --decoder none
    """
    from functools import partial

    from mmalign.captioning import Retrieval
    from mmalign.evaluation import CaptionEvalOptions, evaluate_captions

    table = evaluate_captions(
        manifest,
        datastore,
        split=split,
        datastore_split=datastore_split,
        encoder=encoder or "lite",
        decoders=_writers(decoder, hf),
        twins=partial(_twins, least=twins) if twins else None,
        options=CaptionEvalOptions(retrieval=Retrieval(k=k, floor=floor, diversity=diversity), clip=clip),
        progress=shows_progress(as_json),
    )
    if out is not None:
        _write_captions(table, out)
    payload = table.to_dict()
    if as_json:
        print_json({**payload, "skipped": [{"uri": skip.uri, "reason": skip.reason} for skip in table.skipped]})
        return
    say_skipped(table.skipped)
    _print_captions_table(table, payload)


def _writers(decoder: str, hf: str | None) -> dict[str, Decoder | str]:
    writers: dict[str, Decoder | str] = {}
    if decoder == "none" and hf is None:
        return writers
    # Here: it takes torch with it, which the lower rungs do without.
    from mmalign.captioning import load_decoder

    if decoder != "none":
        try:
            writers["decoder"] = load_decoder(decoder)
        except ModelUnavailableError as error:
            # The other rungs can be measured all the same; a decoder that was named must be there.
            if decoder != "lite":
                raise
            writers["decoder"] = str(error)
    if hf is not None:
        writers["hf"] = load_decoder(hf)
    return writers


def _twins(sentences: Any, references: Any, *, least: float) -> Any:
    from mmalign.training import fuzzy_likeness, same_words

    return same_words(sentences, references) | (fuzzy_likeness(sentences, references) >= least)


def _print_captions_table(table: CaptionsTable, payload: Mapping[str, Any]) -> None:
    counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in table.datastore.items() if count)
    print(f"{table.encoder} on {table.n:,} pictures with {table.n_references:,} captions; datastore: {counts}")
    names = [*table.scores, *(["human"] if table.human else [])]
    figures = list(payload[names[0]]) if names else []
    print_table(
        ["", *figures],
        [[name, *(f"{payload[name][one]:.1f}" if one in payload[name] else "" for one in figures)] for name in names],
    )
    print("\nDifferences, with 95% intervals over pictures")
    print_table(
        ["", "cider", "bleu4"],
        [
            [name, *(f"{value:+.1f} ({low:+.1f} to {high:+.1f})" for value, low, high in (row["cider"], row["bleu4"]))]
            for name, row in payload["differences"].items()
        ],
    )
    for rung, why in table.missing.items():
        say(f"{rung} left out: {why}")
    if table.without_context:
        say(f"{table.without_context} pictures had no caption above the floor; they got the most frequent caption")


def _write_captions(table: CaptionsTable, out: Path) -> None:
    try:
        with out.open("w", encoding="utf-8") as stream:
            for row, uri in enumerate(table.uris):
                captions = {rung: texts[row] for rung, texts in table.captions.items()}
                stream.write(json.dumps({"image": uri, **captions}, ensure_ascii=False) + "\n")
    except OSError as error:
        raise StorageError(f"cannot write --out {out}: {error}; name a file that can be written") from error


def _read_lines(path: Path, split: str | None) -> dict[str, dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read: {error}; expected a .jsonl file, one object a line") from error
    rows: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            name = fields.get("id", fields.get("image"))
        except (ValueError, AttributeError) as error:
            raise SourceError(f"{path}:{number}: not an object in JSON ({error}); expected one a line") from error
        if name is None:
            raise SourceError(f'{path}:{number}: expected an object with "id" or "image", got {line.strip()[:80]!r}')
        if split is not None and fields.get("split") != split:
            continue
        if str(name) in rows:
            raise SourceError(f"{path}:{number}: {name!r} is there twice; give all captions of a picture in one line")
        rows[str(name)] = fields
    if not rows:
        raise SourceError(f"{path} holds nothing{'' if split is None else f' of split {split!r}'}")
    return rows


def _texts(fields: Mapping[str, Any], key: str, path: Path, name: str) -> list[str]:
    texts = fields.get(key) or []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise SourceError(
            f'{path}: {name!r}: expected "captions", a list of texts, in references, and "caption", a text, in '
            f"candidates; got {texts!r}"[:300]
        )
    return texts


def _check_same(wanted: Mapping[str, Any], candidates: Mapping[str, Any]) -> None:
    bare = [name for name in wanted if name not in candidates]
    strange = [name for name in candidates if name not in wanted]
    if bare or strange:
        first = f"no candidate for {bare[0]!r}" if bare else f"no reference for {strange[0]!r}"
        raise SourceError(
            f"references and candidates are not of the same pictures: {len(bare)} have no candidate, {len(strange)} no "
            f"reference; the first: {first}; give each picture one candidate"
        )
