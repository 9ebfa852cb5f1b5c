"""Two pictures of a calibration: the reliability curve, and risk over coverage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmalign.calibration import reliability_table, risk_coverage
from mmalign.errors import MissingExtraError
from mmalign.evaluation.calibration import CalibrationReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INK, _GREY = "#1b1b1b", "#8a8a8a"
# Told apart also without colour: by lightness, and by dashes.
_STYLES = (("#1f4e9c", "-"), ("#d1741c", "--"), ("#4f9a5f", ":"))


def require_matplotlib() -> None:
    """Refuse where matplotlib is missing.

    Raises:
        MissingExtraError: It is not installed.
    """
    require_figure()


def draw_reliability(report: CalibrationReport, path: Path, *, bins: int = 15) -> None:
    """Draw what was predicted against what came about, with bins of equal mass.

    Args:
        report: The measured calibration.
        path: The `.png` to write.
        bins: How many bins.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OSError: The disk refused.
    """
    figure = require_figure()(figsize=(6.4, 7.4), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle=(0, (4, 3)), label="perfect calibration")
    for quality, chances, right, (color, dashes) in zip(
        report.sizes, report.probabilities, report.right, _STYLES, strict=True
    ):
        table = reliability_table(chances, right, bins=bins)
        places, shares = [own.predicted for own in table], np.array([own.observed for own in table])
        ends = np.array([own.interval for own in table]).T
        errors = np.clip([shares - ends[0], ends[1] - shares], 0, 1)
        largest = quality is report.sizes[0]
        axes.errorbar(
            places,
            shares,
            yerr=errors,
            color=color,
            linestyle=dashes,
            marker="o",
            markersize=4,
            linewidth=1.6 if largest else 1.2,
            elinewidth=0.9,
            capsize=2,
            label=f"{quality.pictures:,} pictures: ECE {quality.ece:.3f}",
        )
    axes.axhline(report.quality.base_rate, color=_GREY, linewidth=0.8, linestyle=":")
    axes.annotate(
        f"base rate among {report.n_images:,} pictures: {report.quality.base_rate:.2f}",
        (0.99, report.quality.base_rate),
        ha="right",
        va="bottom",
        color=_INK,
        fontsize=9,
    )
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="share of best hits that are right")
    axes.set_title(f"{_title(report)}\nbars: 95% intervals, each caption taken by itself", fontsize=10, color=_INK)
    axes.legend(loc="upper left", frameon=False)
    below.hist(report.probabilities[0], bins=50, range=(0, 1), color=_STYLES[0][0])
    below.set(xlabel="predicted probability of the best hit", ylabel="captions", xlim=(0, 1))
    _save(figure, [axes, below], path)


def draw_risk_coverage(report: CalibrationReport, path: Path) -> None:
    """Draw the share of wrong answers against the share of queries that is answered.

    Args:
        report: The measured calibration.
        path: The `.png` to write.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OSError: The disk refused.
    """
    figure = require_figure()(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.subplots()
    for quality, chances, right, (color, dashes) in zip(
        report.sizes, report.probabilities, report.right, _STYLES, strict=True
    ):
        curve = risk_coverage(chances, right)
        # The risk of the first few answers is one of 0, 1/2, 1/3...: noise.
        shown = slice(min(len(right) - 1, max(9, len(right) // 200)), None)
        label = f"{quality.pictures:,} pictures: area {curve.area:.3f}"
        axes.plot(curve.coverage[shown], curve.risk[shown], color=color, linestyle=dashes, linewidth=1.8, label=label)
        axes.plot([0, 1], [1 - quality.base_rate] * 2, color=color, linewidth=0.7, alpha=0.6)
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1),
        xlabel="coverage: share of queries answered, the most probable first",
        ylabel="risk: share of answers that are wrong",
    )
    axes.set_title(f"{_title(report)}\nthin lines: answers given in random order", fontsize=10, color=_INK)
    axes.legend(loc="lower right", frameon=False)
    _save(figure, [axes], path)


def _title(report: CalibrationReport) -> str:
    how = f"{report.folds}-fold by picture" if report.folds else f"fitted on {report.calibration.fitted_on}"
    return f"{report.calibration.encoder}, {report.n_captions:,} captions\n{how}"


def _save(figure: Figure, panels: list[Any], path: Path) -> None:
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)
    figure.savefig(path, dpi=150, format="png")


def require_figure() -> type[Figure]:
    """Return matplotlib's class of figures.

    Raises:
        MissingExtraError: It is not installed.
    """
    # The class by itself: pyplot would look for a screen, and keep every figure.
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("drawing curves", package="matplotlib", extra="plots") from error
    return Figure
