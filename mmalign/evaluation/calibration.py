"""How far an encoder's scores can be turned into probabilities: fitted, and measured on pictures not fitted on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.calibration import (
    Binning,
    Calibration,
    Float64Array,
    auroc,
    brier_score,
    brier_skill_score,
    expected_calibration_error,
    risk_coverage,
)
from mmalign.encoders import Encoder, encode_query, load_encoder
from mmalign.errors import InputError
from mmalign.evaluation.calibration_fit import Method, cross_fit, fit_calibration
from mmalign.evaluation.galleries import CaptionedGallery, Trials, run_trials
from mmalign.evaluation.held_out_concepts import choose_concepts
from mmalign.evaluation.open_set import Acceptance, BroadQueries, ConceptTest, TrialModel, ask_broadly, ask_without
from mmalign.evaluation.pictures import encode_pictures
from mmalign.evaluation.retrieval import read_captions
from mmalign.metrics import bootstrap_interval
from mmalign.types import Skip, gives_json
from mmalign.utils import Float32Array

COVERAGES = (0.1, 0.25, 0.5, 0.75, 1.0)
BOUNDS = (0.1, 0.3, 0.5, 0.7)
_RESAMPLES = 200


@dataclass(frozen=True, slots=True)
class Quality:
    """How good the probabilities of some answers are.

    Attributes:
        pictures: Pictures in the gallery; the mean where galleries differ by one.
        n: Answers judged.
        base_rate: Share of them that is right.
        mean_probability: Mean of what was predicted.
        ece: Expected calibration error over 15 bins of equal mass.
        ece_equal_width: The same over 15 bins of equal width.
        auroc: Of right against wrong answers; None where all are right, or all wrong.
        brier: Brier score.
        brier_skill: Brier skill score against the base rate; None as for `auroc`.
    """

    pictures: int
    n: int
    base_rate: float
    mean_probability: float
    ece: float
    ece_equal_width: float
    auroc: float | None
    brier: float
    brier_skill: float | None


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """A calibration and how good it is; every figure is of pictures that the probabilities were not fitted on.

    Attributes:
        calibration: Fitted on all pictures, or the one that was given to be judged.
        n_images: Pictures.
        n_captions: Captions, each a query.
        folds: Folds of pictures in the cross-validation; 0 where a calibration was given to be judged.
        method: How log-odds became probabilities.
        quality: Of the best hits among all pictures.
        intervals: 95% bootstrap intervals over pictures of some of those figures, by name.
        risk: Share of wrong answers at some coverages, by coverage.
        risk_coverage_area: Mean risk over all coverages.
        methods: Of the best hits among all pictures, by method.
        sizes: Of the best hits, by size of the gallery, the largest first.
        ranks: Of the first, second, ... hits among all pictures.
        no_answer: What is answered at some least probabilities.
        concepts: The same by concept that was taken out.
        broad: Concepts asked as one word.
        probabilities: Of the best hits, by size of the gallery, the largest first; for curves.
        right: Whether those hits are right.
        skipped: Pictures of the manifest that were left out, with the reason.
    """

    calibration: Calibration
    n_images: int
    n_captions: int
    folds: int
    method: Method
    quality: Quality
    intervals: dict[str, tuple[float, float]]
    risk: dict[float, float]
    risk_coverage_area: float
    methods: dict[Method, Quality]
    sizes: list[Quality]
    ranks: list[Quality]
    no_answer: list[Acceptance]
    concepts: list[ConceptTest]
    broad: BroadQueries
    probabilities: list[Float64Array]
    right: list[NDArray[np.bool_]]
    skipped: tuple[Skip, ...] = ()

    @gives_json
    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON-ready values, shares from 0 to 1."""
        return {
            "encoder": self.calibration.encoder,
            "n_images": self.n_images,
            "n_captions": self.n_captions,
            "folds": self.folds,
            "method": str(self.method),
            **asdict(self.quality),
            "intervals_95": {name: list(ends) for name, ends in self.intervals.items()},
            "risk": {f"{coverage:g}": risk for coverage, risk in self.risk.items()},
            "risk_coverage_area": self.risk_coverage_area,
            "methods": {str(method): asdict(quality) for method, quality in self.methods.items()},
            "sizes": [asdict(quality) for quality in self.sizes],
            "ranks": [asdict(quality) for quality in self.ranks],
            "no_answer": [asdict(acceptance) for acceptance in self.no_answer],
            "concepts": [asdict(test) for test in self.concepts],
            "broad_queries": asdict(self.broad),
        }


def evaluate_calibration(
    manifest: str | os.PathLike[str],
    *,
    split: str | None = None,
    encoder: str | Encoder = "lite",
    method: Method = Method.PLATT,
    fitted: Calibration | None = None,
    batch_size: int = 32,
    progress: bool = True,
) -> CalibrationReport:
    """Fit a calibration on the captioned pictures of a manifest, and measure it by cross-validation over pictures.

    Or judge one that was fitted on other pictures, as it is.

    The event is that the best hit of a caption is the picture that it was written about. Another picture that the
    caption fits as well counts as wrong, so that the probabilities of broad queries are too low.

    Args:
        manifest: The manifest, as for `read_captions`.
        split: Which part of it; all of it where None.
        encoder: A spec for `load_encoder`, or an encoder.
        method: How log-odds become probabilities.
        fitted: A calibration to judge; None to fit one.
        batch_size: Pictures that go through the model at once.
        progress: Whether to show a progress bar.

    Returns:
        The calibration, and how good it is.

    Raises:
        SourceError: The manifest cannot be read.
        InputError: No such split, too few captioned pictures, an encoder that lacks texts or pictures, or one that
            finds all right answers, or none.
        CalibrationError: `fitted` is of another encoder.
    """
    pictures = read_captions(manifest, split=split)
    model = load_encoder(encoder)
    if not {"text", "image"} <= model.modalities:
        raise InputError(f"{model.name} encodes {', '.join(sorted(model.modalities))}; text and image are needed")
    if fitted is not None:
        fitted.check(model.fingerprint, name=model.name)
    encoded = encode_pictures(model, [p.uri for p in pictures], batch_size=batch_size, progress=progress)
    captions = tuple(pictures[position].captions for position in encoded.kept)
    data = CaptionedGallery(
        captions=captions,
        texts=encode_query(model, [caption for own in captions for caption in own]),
        # As a collection keeps them.
        images=encoded.vectors.astype(np.float16).astype(np.float32),
    )
    where = f"{Path(manifest).resolve().parent.name}{'' if split is None else f', split {split}'}"
    concepts = choose_concepts(captions)
    return measure_calibration(
        data,
        concepts=concepts,
        words=encode_query(model, concepts),
        encoder=(model.name, model.fingerprint),
        method=method,
        fitted=fitted,
        fitted_on=f"{where}: {len(captions):,} pictures, {len(data.texts):,} captions",
        skipped=encoded.skipped,
    )


def measure_calibration(
    data: CaptionedGallery,
    *,
    concepts: Sequence[str],
    words: Float32Array,
    encoder: tuple[str, str],
    method: Method = Method.PLATT,
    fitted: Calibration | None = None,
    fitted_on: str = "",
    folds: int = 5,
    seed: int = 0,
    skipped: tuple[Skip, ...] = (),
) -> CalibrationReport:
    """Fit and measure a calibration on embeddings; as `evaluate_calibration`.

    Args:
        data: Pictures and captions.
        concepts: c singular nouns for the no-answer test.
        words: Their embeddings, shape (c, dim).
        encoder: Name and fingerprint.
        method: How log-odds become probabilities.
        fitted: A calibration to judge; None to fit one.
        fitted_on: The data, in words.
        folds: Folds of pictures.
        seed: Of the galleries and folds.
        skipped: Pictures that were left out.

    Returns:
        The calibration, and how good it is.

    Raises:
        InputError: As `evaluate_calibration`.
    """
    name, fingerprint = encoder
    answerable, unanswerable = run_trials(data, seed=seed)
    judges: dict[Method, TrialModel]
    if fitted is not None:
        calibration, folds = fitted, 0
        method = Method.ISOTONIC if fitted.knots else Method.PLATT
        judges = {method: partial(_probabilities, fitted)}
    else:
        fits = {
            one: partial(fit_calibration, method=one, encoder=name, fingerprint=fingerprint, fitted_on=fitted_on)
            for one in Method
        }
        judges = {
            one: cross_fit(fit, answerable, unanswerable, folds=folds, seed=seed).probabilities
            for one, fit in fits.items()
        }
        calibration = fits[method](answerable, unanswerable)
    by_size = [answerable[answerable.parts == parts] for parts in np.unique(answerable.parts)]
    whole, judge = by_size[0], judges[method]
    chances, right = judge(whole), whole.right
    curve = risk_coverage(chances[:, 0], right[:, 0])
    no_answer, tests = ask_without(data, concepts, whole, judge, bounds=BOUNDS)
    return CalibrationReport(
        calibration=calibration,
        n_images=len(data.captions),
        n_captions=len(data.texts),
        folds=folds,
        method=method,
        quality=_quality(chances[:, 0], right[:, 0], whole),
        intervals=_intervals(chances[:, 0], right[:, 0], whole),
        risk={coverage: curve.at(coverage) for coverage in COVERAGES},
        risk_coverage_area=curve.area,
        methods={one: _quality(own(whole)[:, 0], right[:, 0], whole) for one, own in judges.items()},
        sizes=[_quality(judge(trials)[:, 0], trials.right[:, 0], trials) for trials in by_size],
        ranks=[_quality(chances[:, rank], right[:, rank], whole) for rank in range(right.shape[1])],
        no_answer=no_answer,
        concepts=tests,
        broad=ask_broadly(data, concepts, words, partial(_probabilities, calibration)),
        probabilities=[judge(trials)[:, 0] for trials in by_size],
        right=[trials.right[:, 0] for trials in by_size],
        skipped=skipped,
    )


def _probabilities(calibration: Calibration, trials: Trials) -> Float64Array:
    return calibration.probabilities(trials.scores, pictures=trials.pictures)


def _quality(chances: Float64Array, right: NDArray[np.bool_], trials: Trials) -> Quality:
    mixed = 0 < right.sum() < right.size
    return Quality(
        pictures=round(float(trials.pictures.mean())),
        n=right.size,
        base_rate=float(right.mean()),
        mean_probability=float(chances.mean()),
        ece=expected_calibration_error(chances, right),
        ece_equal_width=expected_calibration_error(chances, right, binning=Binning.EQUAL_WIDTH),
        auroc=auroc(chances, right) if mixed else None,
        brier=brier_score(chances, right),
        brier_skill=brier_skill_score(chances, right) if mixed else None,
    )


def _intervals(chances: Float64Array, right: NDArray[np.bool_], trials: Trials) -> dict[str, tuple[float, float]]:
    """Bootstrap over pictures; the calibration error is left out, since resampling alone makes it larger."""
    rows = np.arange(right.size, dtype=np.float64)

    def interval(measure: Any) -> tuple[float, float]:
        def statistic(drawn: Float64Array) -> float:
            chosen = drawn.astype(np.int64)
            return float(measure(chances[chosen], right[chosen]))

        return bootstrap_interval(rows, statistic, groups=trials.owner, resamples=_RESAMPLES)

    return {"auroc": interval(auroc), "brier_skill": interval(brier_skill_score)}
