"""The learned head: where in a picture a phrase is, in boxes and as a heat map, from the features of `lite`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmalign.encoders import (
    ImageLike,
    Tensor,
    TwoTowerEncoder,
    check_digest,
    check_texts,
    load_rgb,
    read_tensors,
    to_float32,
    write_tensors,
)
from mmalign.errors import InputError, ModelUnavailableError
from mmalign.grounding.cells import grounding_cells, spot_maps
from mmalign.types import Box, Region
from mmalign.utils import Float32Array

if TYPE_CHECKING:
    from mmalign.grounding.net import GroundingNet

FORMAT = "mmalign grounding head 1"
HEAD_PATH = Path(__file__).with_name("weights") / "grounding-head.safetensors"
HEAD_SHA256 = "1a4e338e6ad0564e5b99987602b1cd4b87424bb83dd7db940b073089b0561976"
"""Digest of the shipped head; written anew whenever it is trained anew."""

_REMEDY = "reinstall it with: pip install --force-reinstall --no-deps mmalign"
# How many boxes of a phrase vote on where it is, and how much the best outweigh the rest.
_VOTERS = 120
# Two boxes of one phrase that overlap by more are the same place.
_SAME = 0.5


@dataclass(frozen=True, slots=True)
class Scoring:
    """How the votes of a phrase's cells become scores; fitted after the training, kept in the weight file.

    Attributes:
        sharpness: What a cell's log-odds of fitting are multiplied with before the softmax, above 0.
        overlap: Weight of the logarithm of the expected overlap.
        inside: Weight of the logarithm of the share of the heat that lies inside.
        density: Weight of the logarithm of the mean heat inside over that of the picture.
        existence: Weights of a constant, the best cell's log-odds, the heat's greatest log-odds and the cosine of
            phrase and picture, whose sum is the log-odds that the phrase is in the picture.
    """

    sharpness: float = 1.0
    overlap: float = 1.0
    inside: float = 0.0
    density: float = 0.0
    existence: tuple[float, float, float, float] = (0.0, 1.0, 0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Grounding:
    """Where phrases are in one picture.

    Attributes:
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
        heat: How much of each phrase is in each cell, shape (p, h, w), float32, 0 to 1; row 0 is the top.
        fit: Log-odds that the box of a cell fits the phrase, shape (p, h, w), float32.
        boxes: The boxes of the cells as left, top, right and bottom in pixels, shape (p, h, w, 4), float32.
        cosines: Of each phrase with the whole picture, shape (p,), float32.
        scoring: How these become scores.
    """

    width: int
    height: int
    heat: Float32Array
    fit: Float32Array
    boxes: Float32Array
    cosines: Float32Array
    scoring: Scoring = field(default_factory=Scoring)

    def score(self, boxes: Sequence[Box]) -> Float32Array:
        """Score how well boxes fit the phrases.

        Args:
            boxes: r boxes in pixels; what lies outside the picture does not count.

        Returns:
            Array of shape (p, r), float32, in nats: differences within a row are log-odds of one box against another.
            It is above all the logarithm of the overlap to be expected with the boxes that the cells draw, each
            weighted by how well it is expected to fit.
        """
        how = self.scoring
        scores: Float32Array = self.box_signs(boxes) @ np.array([how.overlap, how.inside, how.density], np.float32)
        return scores

    def box_signs(self, boxes: Sequence[Box]) -> Float32Array:
        """What `score` is weighed from.

        Args:
            boxes: r boxes in pixels.

        Returns:
            Array of shape (p, r, 3), float32: the logarithms of the expected overlap, of the share of the heat inside,
            and of the mean heat inside over that of the picture.
        """
        if not boxes or not len(self.heat):
            return np.zeros((len(self.heat), len(boxes), 3), np.float32)
        asked = np.array([box.corners for box in boxes], np.float32)
        voters, weights = self._votes
        overlap = np.stack([weight @ corner_iou(drawn, asked) for drawn, weight in zip(voters, weights, strict=True)])
        inside, area = self._heat_inside(asked)
        # Small constants, so that a box without any of it is much worse, and not infinitely so.
        signs = [np.log(overlap + 0.01), np.log(inside + 0.01), np.log((inside + 1e-3) / (area + 1e-3))]
        return np.stack(signs, axis=2).astype(np.float32)

    def regions(self, *, most: int = 5) -> tuple[tuple[Region, ...], ...]:
        """Give the boxes that each phrase's cells agree on.

        Args:
            most: How many for each phrase at most, from 1.

        Returns:
            For each phrase its regions, best first, none overlapping another by more than a half; `score` is the
            expected overlap.
        """
        if most < 1:
            raise InputError(f"most must be at least 1, got {most}")
        found = []
        for drawn, weights in zip(*self._votes, strict=True):
            agreed = corner_iou(drawn, drawn) @ weights
            chosen: list[int] = []
            for index in np.argsort(-agreed, kind="stable"):
                if all(
                    corner_iou(drawn[index : index + 1], drawn[other : other + 1])[0, 0] <= _SAME for other in chosen
                ):
                    chosen.append(int(index))
                if len(chosen) == most:
                    break
            found.append(tuple(self._region(drawn[index], float(agreed[index])) for index in chosen))
        return tuple(found)

    @property
    def existence(self) -> Float32Array:
        """Calibrated probability that each phrase is in the picture, shape (p,), float32."""
        signs = self.existence_signs
        odds = signs @ np.asarray(self.scoring.existence, np.float32)
        result: Float32Array = (1.0 / (1.0 + np.exp(-odds))).astype(np.float32)
        return result

    @property
    def existence_signs(self) -> Float32Array:
        """What `existence` is weighed from: a constant and three signs, shape (p, 4), float32."""
        p = len(self.heat)
        if p == 0:
            return np.zeros((0, 4), np.float32)
        peak = np.clip(self.heat.reshape(p, -1).max(axis=1), 1e-4, 1 - 1e-4)
        best = self.fit.reshape(p, -1).max(axis=1)
        return np.stack([np.ones(p), best, np.log(peak / (1 - peak)), 10 * self.cosines], axis=1).astype(np.float32)

    @cached_property
    def _votes(self) -> tuple[Float32Array, Float32Array]:
        """The boxes that vote and their weights, shapes (p, v, 4) and (p, v)."""
        p, h, w = self.heat.shape
        fit = self.fit.reshape(p, h * w)
        order = np.argsort(-fit, axis=1, kind="stable")[:, :_VOTERS]
        logits = np.take_along_axis(fit, order, axis=1) * self.scoring.sharpness
        weights = np.exp(logits - logits.max(axis=1, keepdims=True)) if p else logits
        drawn = np.take_along_axis(self.boxes.reshape(p, h * w, 4), order[:, :, None], axis=1)
        return drawn, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)

    def _heat_inside(self, corners: Float32Array) -> tuple[Float32Array, Float32Array]:
        """The share of each phrase's heat, and of the picture, that lies in each box: (p, r) and (r,)."""
        _, h, w = self.heat.shape
        columns = _covered(corners[:, 0], corners[:, 2], self.width, w)
        rows = _covered(corners[:, 1], corners[:, 3], self.height, h)
        share = self.heat / np.maximum(self.heat.sum(axis=(1, 2), keepdims=True), 1e-6)
        inside = np.einsum("phw,rh,rw->pr", share, rows, columns, optimize=True)
        area = rows.mean(axis=1) * columns.mean(axis=1)
        return inside.astype(np.float32), area.astype(np.float32)

    def _region(self, corners: Float32Array, score: float) -> Region:
        left, top, right, bottom = (float(value) for value in corners)
        return Region(Box(left, top, right - left, bottom - top), source="head", score=min(1.0, score))


class GroundingHead:
    """What finds phrases in pictures from the features of the `lite` encoder that it was trained on.

    Args:
        path: A weight file that `export_head` wrote.
        sha256: Its digest, or None not to check it.

    Raises:
        ModelUnavailableError: The file is missing, damaged, or another model's.
    """

    def __init__(self, path: Path, *, sha256: str | None = None) -> None:
        if sha256 is not None:
            check_digest(path, sha256, remedy=_REMEDY)
        try:
            self._tensors, self.metadata = read_tensors(path)
            self._size: dict[str, int] = json.loads(self.metadata["size"])
            stored = json.loads(self.metadata["scoring"])
            self.scoring = Scoring(**{**stored, "existence": tuple(stored["existence"])})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelUnavailableError(
                f"{path} is not the weight file of a grounding head ({error}); {_REMEDY}"
            ) from error
        if self.metadata.get("format") != FORMAT:
            raise ModelUnavailableError(f"{path}: expected the format {FORMAT!r}, got {self.metadata.get('format')!r}")

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the encoder whose features it reads."""
        return self.metadata["encoder"]

    def fits(self, encoder: object) -> bool:
        """Say whether it was trained on the features of an encoder."""
        return isinstance(encoder, TwoTowerEncoder) and encoder.fingerprint == self.fingerprint

    def ground(self, encoder: TwoTowerEncoder, image: ImageLike, phrases: Sequence[str]) -> Grounding:
        """Look for phrases in a picture.

        Args:
            encoder: The encoder whose features it reads; see `fits`.
            image: A picture of any PIL mode, or a path.
            phrases: p phrases.

        Returns:
            Where they are.

        Raises:
            DecodeError: The path cannot be decoded.
            InputError: Not a sequence of texts, or neither a picture nor a path.
            ModelUnavailableError: A weight file of the encoder has other bytes than expected.
        """
        picture = load_rgb(image)
        text = encoder.encode_text(check_texts(phrases, batch_size=64))
        return self.locate(grounding_cells(encoder, picture), text, size=picture.size)

    def locate(self, cells: Float32Array, text: Float32Array, *, size: tuple[int, int]) -> Grounding:
        """Look for encoded phrases in the cells of a picture.

        Args:
            cells: What `grounding_cells` gives, shape (h, w, inputs).
            text: Embeddings of p phrases, of length 1, shape (p, dim).
            size: Width and height of the picture in pixels.

        Returns:
            Where they are.
        """
        import torch

        shared = cells[..., -text.shape[1] :]
        with torch.inference_mode():
            mixed = self._net.picture(torch.from_numpy(cells)[None])
            heat, fit, boxes = self._net(
                mixed.expand(len(text), -1, -1, -1),
                torch.from_numpy(text),
                torch.from_numpy(spot_maps(text, shared)),
            )
        mean = shared.mean(axis=(0, 1))
        width, height = size
        scale = np.array([width, height, width, height], np.float32)
        return Grounding(
            width=width,
            height=height,
            heat=torch.sigmoid(heat).numpy(),
            fit=fit.numpy(),
            boxes=np.clip(boxes.numpy(), 0, 1) * scale,
            cosines=text @ (mean / max(float(np.linalg.norm(mean)), 1e-6)),
            scoring=self.scoring,
        )

    @cached_property
    def _net(self) -> GroundingNet:
        import torch

        from mmalign.grounding.net import GroundingNet, NetSize

        net = GroundingNet(NetSize(**self._size)).eval()
        net.load_state_dict(
            {name: torch.from_numpy(np.array(to_float32(tensor))) for name, tensor in self._tensors.items()}
        )
        return net.requires_grad_(False)


def shipped_head(encoder: object) -> GroundingHead | None:
    """Give the head that comes with mmalign for an encoder.

    Args:
        encoder: Any encoder.

    Returns:
        The head; None where there is none that was trained on the features of this very encoder.

    Raises:
        ModelUnavailableError: The head's file is damaged.
    """
    if not isinstance(encoder, TwoTowerEncoder) or not HEAD_PATH.exists():
        return None
    head = _shipped()
    return head if head.fits(encoder) else None


@cache
def _shipped() -> GroundingHead:
    return GroundingHead(HEAD_PATH, sha256=HEAD_SHA256)


def export_head(
    path: Path, tensors: Mapping[str, Tensor], *, size: Any, scoring: Scoring, encoder: str, metadata: Mapping[str, str]
) -> str:
    """Write a trained head to the file that `GroundingHead` loads.

    Args:
        path: The safetensors file.
        tensors: The network's tensors by name; matrices are kept as float16.
        size: The network's `NetSize`.
        scoring: How its votes become scores.
        encoder: Fingerprint of the encoder whose features it reads.
        metadata: Licence, provenance and what else belongs into the header.

    Returns:
        SHA-256 of the file as 64 hex digits.

    Raises:
        InputError: A tensor that holds NaN or infinity, or what float16 cannot hold.
    """
    kept: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        exact = to_float32(tensor)
        if not np.isfinite(exact).all() or np.abs(exact).max(initial=0) > np.finfo(np.float16).max:
            raise InputError(f"{name} holds values that float16 cannot; train with a lower learning rate")
        kept[name] = exact if exact.ndim < 2 else exact.astype(np.float16)
    notes = {
        **metadata,
        "format": FORMAT,
        "encoder": encoder,
        "size": json.dumps(asdict(size)),
        "scoring": json.dumps(asdict(scoring)),
    }
    return write_tensors(path, kept, metadata=notes)


def corner_iou(first: Float32Array, second: Float32Array) -> Float32Array:
    """Overlap of boxes given by their corners, shapes (n, 4) and (m, 4) to (n, m); 0 for boxes without area."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    both = np.prod(np.maximum(high - low, 0), axis=2)
    areas = [np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1) for boxes in (first, second)]
    result: Float32Array = both / np.maximum(areas[0][:, None] + areas[1][None] - both, 1e-6)
    return result


def _covered(low: Float32Array, high: Float32Array, length: float, cells: int) -> Float32Array:
    """The share of each of `cells` equal parts of 0 to `length` that lies between low and high, shape (n, cells)."""
    edges = np.arange(cells + 1, dtype=np.float32) * (length / cells)
    both = np.minimum(high[:, None], edges[1:]) - np.maximum(low[:, None], edges[:-1])
    result: Float32Array = np.clip(both / (length / cells), 0, 1)
    return result
