"""Scores to probabilities: the mapping, its fitting and its figures."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mmalign.calibration.fit import fit_isotonic as fit_isotonic
    from mmalign.calibration.fit import fit_platt as fit_platt
    from mmalign.calibration.fit import grouped_folds as grouped_folds
    from mmalign.calibration.mapping import FILE as FILE
    from mmalign.calibration.mapping import MARGIN_HITS as MARGIN_HITS
    from mmalign.calibration.mapping import Calibration as Calibration
    from mmalign.calibration.mapping import hit_features as hit_features
    from mmalign.calibration.metrics import Binning as Binning
    from mmalign.calibration.metrics import Float64Array as Float64Array
    from mmalign.calibration.metrics import auroc as auroc
    from mmalign.calibration.metrics import brier_score as brier_score
    from mmalign.calibration.metrics import brier_skill_score as brier_skill_score
    from mmalign.calibration.metrics import expected_calibration_error as expected_calibration_error
    from mmalign.calibration.metrics import reliability_table as reliability_table
    from mmalign.calibration.metrics import risk_coverage as risk_coverage

# Loaded at first use, so that nobody waits for what is not needed.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "fit": ["fit_isotonic", "fit_platt", "grouped_folds"],
        "mapping": ["Calibration", "FILE", "MARGIN_HITS", "hit_features"],
        "metrics": [
            "Binning",
            "Float64Array",
            "auroc",
            "brier_score",
            "brier_skill_score",
            "expected_calibration_error",
            "reliability_table",
            "risk_coverage",
        ],
    },
)
