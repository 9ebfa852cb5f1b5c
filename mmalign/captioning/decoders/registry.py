"""`load_decoder`: what writes captions, by its name."""

from __future__ import annotations

import os
from pathlib import Path

from mmalign.captioning.decoders.base import Decoder
from mmalign.captioning.decoders.prefix import is_prefix, read_prefix
from mmalign.captioning.decoders.trained import TrainedDecoder, open_decoder, read_decoder
from mmalign.errors import InputError, ModelUnavailableError

SHIPPED = Path(__file__).with_name("weights") / "lite-captioner.safetensors"
"""The decoder that comes with this package, for the encoder `lite`."""
SHIPPED_SHA256 = "2d4ffb0a67139fbdeecbf80ccff7b72fa436048182da3c57ed288e68015cba4e"
"""Digest of that file; written anew whenever it is trained anew."""
PREFIX = "prefix.safetensors"
"""Name of a soft prefix's file in a folder."""

_KINDS = "lite, hf:NAME_OR_PATH, openai:MODEL@URL, or the path of a trained decoder"


def load_decoder(
    spec: str | os.PathLike[str] = "lite",
    *,
    prefix: str | os.PathLike[str] | None = None,
    device: str | None = None,
) -> Decoder:
    """Load what writes captions.

    Args:
        spec: `lite` for the decoder that comes with this package; the file or folder of one that
            `mmalign train captioner` made; `hf:NAME_OR_PATH` for a language model of Hugging Face: a name on the hub, a
            folder, or a GGUF file; `openai:MODEL@URL` for one behind an OpenAI-compatible address.
        prefix: With `hf:`, the file or folder of a soft prefix that was trained for this language model, which then is
            told of the picture too. The file or folder alone, as `spec`, loads the language model from where it was
            when the prefix was trained.
        device: A torch device; the processor where None.

    Returns:
        The decoder.

    Raises:
        InputError: The name means nothing, or a prefix with something else than `hf:`.
        ModelUnavailableError: The weights are not there, have other bytes than expected, or the prefix is that of
            another language model.
        MissingExtraError: A GGUF file, and the package `gguf` is not installed.
    """
    text = os.fspath(spec)
    kind, _, rest = text.partition(":")
    if prefix is not None and not (kind == "hf" and rest):
        raise InputError(f"a soft prefix is for hf:NAME_OR_PATH, got {text!r}")
    if text == "lite":
        return _shipped(device)
    if kind == "hf" and rest:
        from mmalign.captioning.decoders.hf import HFDecoder

        if prefix is None:
            return HFDecoder(rest, device=device)
        file = find_prefix(Path(prefix))
        return HFDecoder(rest, prefix=read_prefix(file or Path(prefix)), device=device)
    if kind == "openai" and rest:
        from mmalign.captioning.decoders.openai import OpenAIDecoder

        model, _, url = rest.partition("@")
        return OpenAIDecoder(model, url)
    if (found := find_prefix(Path(text))) is not None:
        from mmalign.captioning.decoders.hf import HFDecoder

        trained = read_prefix(found)
        return HFDecoder(trained.notes["language_model"].removeprefix("hf:"), prefix=trained, name=text, device=device)
    if _is_there(Path(text)):
        return open_decoder(Path(text), device=device)
    raise InputError(f"expected a caption decoder ({_KINDS}), got {text!r}, which is no file or folder here either")


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        # Too long for a path, or a NUL.
        return False


def find_prefix(path: Path) -> Path | None:
    """Find the file of a soft prefix.

    Args:
        path: The file, or a folder with `export/prefix.safetensors` or `prefix.safetensors` in it.

    Returns:
        The file, or None where there is none.
    """
    for candidate in (path, path / PREFIX, path / "export" / PREFIX):
        try:
            if candidate.is_file() and is_prefix(candidate):
                return candidate
        except (OSError, ValueError):
            # Too long for a path, or a NUL: it is none.
            return None
    return None


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
