"""A picture of index designs: recall over queries a second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmalign.evaluation.calibration_plots import require_figure

_INK = "#1b1b1b"
# Told apart also without colour: by mark and by lightness.
_COLOURS = ("#1f4e9c", "#d1741c", "#4f9a5f", "#8a3d77", "#6b6b6b", "#b8a12d", "#2d9aa8", "#7a4a21")
_MARKS = "os^Dv*XPp<h>d"


def draw_recall_speed(tables: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw what recall each design reaches at what speed, alone and in batches.

    Args:
        tables: `[[measured]]` tables of the same data.
        path: The `.png` to write.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OSError: The disk refused.
    """
    figure = require_figure()(figsize=(10.5, 4.8), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, column, title in zip(
        panels, ("qps_single", "qps_batch"), ("one query at a time", "all queries in one batch"), strict=True
    ):
        for i, table in enumerate(tables):
            axes.plot(
                table[column],
                table["recall"],
                color=_COLOURS[i % len(_COLOURS)],
                marker=_MARKS[i % len(_MARKS)],
                markersize=5,
                linewidth=1.3,
                label=f"{table['recipe']}, {table['bytes_per_vector']:,.0f} bytes a vector",
            )
        axes.set(xscale="log", xlabel=f"queries a second, {title}")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e4e4e4", linewidth=0.6)
    panels[0].set(ylabel=f"recall@{tables[0]['k']}")
    panels[0].legend(loc="lower left", frameon=False, fontsize=9)
    figure.suptitle(
        f"{tables[0]['data']}\n{tables[0]['machine']}, {tables[0]['threads']} threads", fontsize=10, color=_INK
    )
    figure.savefig(path, dpi=150, format="png")
