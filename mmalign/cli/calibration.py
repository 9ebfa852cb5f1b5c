"""`mmalign eval calibration`: fit what turns scores into probabilities, and measure it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmalign.cli.output import EncoderOption, JsonOption, print_json, print_table, say, say_skipped, shows_progress
from mmalign.errors import InputError, StorageError

if TYPE_CHECKING:
    from mmalign.evaluation import CalibrationReport, Quality

_HEADER = ["pictures", "n", "base rate", "predicted", "ECE", "ECE equal width", "AUROC", "Brier", "Brier skill"]


def eval_calibration(
    manifest: Annotated[Path, typer.Option(help='A .jsonl file of {"image": path, "captions": [...], "split": ...}.')],
    split: Annotated[str | None, typer.Option(help="Only the pictures of this split.")] = None,
    encoder: EncoderOption = None,
    method: Annotated[str, typer.Option(help="platt (smooth) or isotonic (bends with the data).")] = "platt",
    fitted: Annotated[
        Path | None,
        typer.Option(help="A calibration.json to judge as it is, fitted on other pictures; nothing is fitted then."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="A folder for calibration.json, report.json, reliability.png and risk-coverage.png."),
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Also keep the calibration beside the weights of lite, for all searches.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Turn scores into probabilities, and measure how far they can be trusted.

    The event is that the best hit is the picture that the query was written about. All figures are cross-validated by
    picture: no probability is judged on pictures that it was fitted on. To search a collection of an encoder other
    than lite with --min-probability, put the calibration.json that this writes into the collection's folder.

    For example:

        mmalign eval calibration --manifest pictures.jsonl --split dev --out calibration

        mmalign eval calibration --manifest others.jsonl --fitted calibration/calibration.json
    """
    from mmalign.calibration import Calibration
    from mmalign.encoders import KeepsCalibration, load_encoder
    from mmalign.evaluation import Method, evaluate_calibration

    if method not in set(Method):
        raise InputError(f"--method is {' or '.join(Method)}, got {method!r}")
    model = load_encoder(encoder or "lite")
    kept = model.calibration_path if isinstance(model, KeepsCalibration) else None
    if write and fitted is not None:
        raise InputError("--write keeps a calibration that is fitted here; leave it out with --fitted")
    if write and kept is None:
        raise InputError(
            f"--write keeps the calibration of lite, got {model.name}; use --out DIR and put its calibration.json into "
            "the folder of each collection"
        )
    if out is not None:
        from mmalign.evaluation import require_matplotlib

        # Before the minutes of encoding, not after them.
        require_matplotlib()
    report = evaluate_calibration(
        manifest,
        split=split,
        encoder=model,
        method=Method(method),
        fitted=None if fitted is None else Calibration.read(fitted),
        progress=shows_progress(as_json),
    )
    if out is not None:
        _write_files(report, out)
    if write and kept is not None:
        report.calibration.write(kept)
        say(f"wrote {kept}")
    if as_json:
        skipped = [{"uri": skip.uri, "reason": skip.reason} for skip in report.skipped]
        print_json({**report.to_dict(), "skipped": skipped})
        return
    say_skipped(report.skipped)
    _print_report(report)


def _write_files(report: CalibrationReport, out: Path) -> None:
    from mmalign.calibration import FILE
    from mmalign.evaluation import draw_reliability, draw_risk_coverage

    try:
        out.mkdir(parents=True, exist_ok=True)
        report.calibration.write(out / FILE)
        (out / "report.json").write_text(json.dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")
        draw_reliability(report, out / "reliability.png")
        draw_risk_coverage(report, out / "risk-coverage.png")
    except OSError as error:
        raise StorageError(f"cannot write into --out {out}: {error}; name a folder that can be written to") from error
    say(f"wrote {FILE}, report.json, reliability.png and risk-coverage.png into {out}")


def _print_report(report: CalibrationReport) -> None:
    fitted = report.calibration
    how = f"{report.folds}-fold by picture" if report.folds else f"fitted on {fitted.fitted_on}"
    print(
        f"{fitted.encoder} on {report.n_images:,} pictures with {report.n_captions:,} captions, {report.method}, {how}"
    )
    print("\nThe best hit, by size of the gallery")
    print_table(_HEADER, [_row(quality) for quality in report.sizes])
    ends = {name: f"{low:.3f} to {high:.3f}" for name, (low, high) in report.intervals.items()}
    print(
        f"95% intervals over pictures, {report.n_images:,} pictures: "
        f"AUROC {ends['auroc']}, Brier skill {ends['brier_skill']}"
    )
    print("\nBy method")
    print_table(["", *_HEADER], [[str(method), *_row(quality)] for method, quality in report.methods.items()])
    print("\nHits below the first")
    print_table(["rank", *_HEADER], [[str(rank), *_row(one)] for rank, one in enumerate(report.ranks, 1)])
    print("\nRisk: share of wrong answers among the most probable ones")
    risks = [f"{risk:.3f}" for risk in report.risk.values()]
    print_table(
        [*(f"at {coverage:.0%}" for coverage in report.risk), "area"], [[*risks, f"{report.risk_coverage_area:.3f}"]]
    )
    print("\nNo-answer test: all pictures of a concept taken out, and asked for")
    print_table(
        ["min probability", "false accept", "true accept", "answered", "precision"],
        [
            [
                f"{one.min_probability:g}",
                f"{one.false_accept:.3f}",
                f"{one.true_accept:.3f}",
                f"{one.answered:.3f}",
                _number(one.precision),
            ]
            for one in report.no_answer
        ],
    )
    bounds = [f"false at {one.min_probability:g}" for one in report.no_answer]
    print("\nThe same test, concept by concept")
    print_table(
        ["concept", "pictures taken out", "queries", *bounds],
        [
            [test.concept, f"{test.removed:,}", f"{test.queries:,}", *(f"{share:.3f}" for share in test.false_accept)]
            for test in report.concepts
        ],
    )
    broad = report.broad
    print(
        f"\n{broad.queries} queries of one word, which many pictures answer: mean probability "
        f"{broad.mean_probability:.2f}, best hit right {broad.right:.2f}"
    )


def _row(quality: Quality) -> list[str]:
    numbers = (
        quality.base_rate,
        quality.mean_probability,
        quality.ece,
        quality.ece_equal_width,
        quality.auroc,
        quality.brier,
        quality.brier_skill,
    )
    return [f"{quality.pictures:,}", f"{quality.n:,}", *map(_number, numbers)]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
