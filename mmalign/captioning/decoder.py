"""`load_decoder`: what writes captions, by its name."""

from __future__ import annotations

import os
from pathlib import Path

from mmalign.captioning.drafts import Decoder
from mmalign.captioning.trained import TrainedDecoder, open_decoder, read_decoder
from mmalign.errors import InputError, ModelUnavailableError

SHIPPED = Path(__file__).with_name("weights") / "lite-captioner.safetensors"
"""The decoder that comes with this package, for the encoder `lite`."""
SHIPPED_SHA256 = "2d4ffb0a67139fbdeecbf80ccff7b72fa436048182da3c57ed288e68015cba4e"
"""Digest of that file; written anew whenever it is trained anew."""

_KINDS = "lite, hf:NAME_OR_PATH, openai:MODEL@URL, or the path of a trained decoder"


def load_decoder(spec: str | os.PathLike[str] = "lite", *, device: str | None = None) -> Decoder:
    """Load what writes captions.

    Args:
        spec: `lite` for the decoder that comes with this package; the file or folder of one that
            `mmalign train captioner` made; `hf:NAME_OR_PATH` for a language model of Hugging Face: a name on the hub, a
            folder, or a GGUF file; `openai:MODEL@URL` for one behind an OpenAI-compatible address.
        device: A torch device; the processor where None.

    Returns:
        The decoder.

    Raises:
        InputError: The name means nothing.
        ModelUnavailableError: The weights are not there, or have other bytes than expected.
        MissingExtraError: A GGUF file, and the package `gguf` is not installed.
    """
    text = os.fspath(spec)
    if text == "lite":
        return _shipped(device)
    kind, _, rest = text.partition(":")
    if kind == "hf" and rest:
        from mmalign.captioning.hf import HFDecoder

        return HFDecoder(rest, device=device)
    if kind == "openai" and rest:
        from mmalign.captioning.openai import OpenAIDecoder

        model, _, url = rest.partition("@")
        return OpenAIDecoder(model, url)
    if Path(text).exists():
        return open_decoder(Path(text), device=device)
    raise InputError(f"expected a caption decoder ({_KINDS}), got {text!r}, which is no file or folder here either")


def _shipped(device: str | None) -> TrainedDecoder:
    import hashlib

    remedy = "reinstall it with: pip install --force-reinstall --no-deps mmalign"
    if not SHIPPED.is_file():
        raise ModelUnavailableError(f"the caption decoder {SHIPPED.name} is missing from this package; {remedy}")
    with SHIPPED.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != SHIPPED_SHA256:
        raise ModelUnavailableError(f"{SHIPPED}: expected SHA-256 {SHIPPED_SHA256}, got {found}; {remedy}")
    return TrainedDecoder(read_decoder(SHIPPED), name="lite", device=device)
