"""The model card of a version of `lite`: what it is and how good it was found to be.

`python -m benchmarks.retrieval DATA --cards` writes it beside the weights; `mmalign models` shows it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.results import ROOT
from mmalign.encoders.lite import efficientnet, minilm
from mmalign.encoders.lite.v1 import LiteEncoder
from mmalign.encoders.lite.v2 import Lite2Encoder
from mmalign.errors import InputError

LICENCE = "Apache-2.0; towers: see docs/lite-model.md"
Lite: TypeAlias = LiteEncoder | Lite2Encoder


def card_path(spec: str) -> Path:
    """Where the card of a version such as `lite@1` is kept."""
    return ROOT / "mmalign" / "encoders" / "lite" / "weights" / f"{spec.replace('@', '-')}.json"


def parameters(encoder: Lite) -> int:
    """Number of weights, both towers and adapters; batch norm is folded into its convolutions."""
    shapes = [*minilm.minilm_shapes().values(), *efficientnet.efficientnet_shapes().values()]
    return sum(map(prod, shapes)) + encoder.text_adapter.parameters + encoder.image_adapter.parameters


def weight_bytes(encoder: Lite) -> int:
    """Size of all weight files."""
    return sum(path.stat().st_size for path in encoder.weight_files)


def model_card(encoder: Lite, measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Describe a version of `lite`.

    Args:
        encoder: The encoder.
        measured: One measurement a data set, as `benchmarks.retrieval.measure` gives it.

    Returns:
        JSON-ready values: spec, dim, parameters, bytes of all weight files, licence, quality in a sentence, measured.

    Raises:
        InputError: Nothing was measured, or with other weights.
    """
    if not measured:
        raise InputError("expected at least one measurement, got none; a card without figures helps nobody")
    for one in measured:
        if one["fingerprint"] != encoder.fingerprint:
            raise InputError(f"{one['data']} was measured with other weights than {encoder.name} has; measure again")
    return {
        "spec": encoder.name,
        "dim": encoder.dim,
        "parameters": parameters(encoder),
        "bytes": weight_bytes(encoder),
        "licence": LICENCE,
        "quality": _quality(measured),
        "measured": [dict(one) for one in measured],
    }


def write_card(encoder: Lite, measured: Sequence[Mapping[str, Any]], *, path: Path | None = None) -> Path:
    """Write the card of a version of `lite` beside its weights, or to `path`."""
    path = path or card_path(encoder.name)
    path.write_text(json.dumps(model_card(encoder, measured), indent=2) + "\n", encoding="utf-8")
    return path


def _quality(measured: Sequence[Mapping[str, Any]]) -> str:
    """The first figure of each kind that people compare encoders by, in a sentence."""
    first: dict[str, Mapping[str, Any]] = {}
    for one in measured:
        first.setdefault(one["table"], one)
    parts = []
    for table, one in first.items():
        if table == "retrieval":
            scores = one["text_to_image"]
            parts.append(f"text-to-image any-hit@1 {scores['any_hit@1']:.1f}%, @10 {scores['any_hit@10']:.1f}%")
        elif table == "classes":
            parts.append(f"zero-shot @1 {one['image_to_class']['accuracy@1']:.1f}%")
        else:
            parts.append(f"pairs {one['overall']['accuracy']:.1f}%")
        parts[-1] = f"{_title(one)} {parts[-1]}"
    return "; ".join(parts) + " (measured)"


def _title(one: Mapping[str, Any]) -> str:
    return str(one["data"]).split(":")[0]
