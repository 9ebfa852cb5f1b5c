"""The measured tables: how good an encoder is on a manifest of pictures."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mmalign.evaluation.baselines import CaptionsTable as CaptionsTable
    from mmalign.evaluation.calibration import CalibrationReport as CalibrationReport
    from mmalign.evaluation.calibration import Quality as Quality
    from mmalign.evaluation.calibration import evaluate_calibration as evaluate_calibration
    from mmalign.evaluation.calibration_fit import Method as Method
    from mmalign.evaluation.calibration_plots import draw_reliability as draw_reliability
    from mmalign.evaluation.calibration_plots import draw_risk_coverage as draw_risk_coverage
    from mmalign.evaluation.calibration_plots import require_matplotlib as require_matplotlib
    from mmalign.evaluation.captions import CaptionEvalOptions as CaptionEvalOptions
    from mmalign.evaluation.captions import evaluate_captions as evaluate_captions
    from mmalign.evaluation.classes import PROMPTS as PROMPTS
    from mmalign.evaluation.classes import evaluate_classes as evaluate_classes
    from mmalign.evaluation.existence import file_half as file_half
    from mmalign.evaluation.existence import is_named as is_named
    from mmalign.evaluation.grounding import evaluate_grounding as evaluate_grounding
    from mmalign.evaluation.index_audit.audit import AuditOptions as AuditOptions
    from mmalign.evaluation.index_audit.audit import audit as audit
    from mmalign.evaluation.index_audit.report import AuditReport as AuditReport
    from mmalign.evaluation.index_audit.report import MeasuredSetting as MeasuredSetting
    from mmalign.evaluation.index_audit.target import AuditTarget as AuditTarget
    from mmalign.evaluation.index_audit.target import RowFilter as RowFilter
    from mmalign.evaluation.index_audit.target import SearchMode as SearchMode
    from mmalign.evaluation.index_audit.targets.opening import Place as Place
    from mmalign.evaluation.index_audit.targets.opening import register_target as register_target
    from mmalign.evaluation.index_bench import BenchOptions as BenchOptions
    from mmalign.evaluation.index_bench import bench_indexes as bench_indexes
    from mmalign.evaluation.index_bench_data import open_bench_source as open_bench_source
    from mmalign.evaluation.index_plots import draw_recall_speed as draw_recall_speed
    from mmalign.evaluation.pairs import evaluate_pairs as evaluate_pairs
    from mmalign.evaluation.phrases import PhrasePicture as PhrasePicture
    from mmalign.evaluation.phrases import read_phrases as read_phrases
    from mmalign.evaluation.retrieval import evaluate_retrieval as evaluate_retrieval

# Loaded at first use, so that nobody waits for what is not needed.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "existence": ["file_half", "is_named"],
        "calibration": ["CalibrationReport", "Quality", "evaluate_calibration"],
        "calibration_fit": ["Method"],
        "calibration_plots": ["draw_reliability", "draw_risk_coverage", "require_matplotlib"],
        "captions": ["CaptionEvalOptions", "evaluate_captions"],
        "classes": ["PROMPTS", "evaluate_classes"],
        "grounding": ["evaluate_grounding"],
        "index_audit.audit": ["AuditOptions", "audit"],
        "index_audit.report": ["AuditReport", "MeasuredSetting"],
        "index_audit.target": ["AuditTarget", "RowFilter", "SearchMode"],
        "index_audit.targets.opening": ["Place", "register_target"],
        "index_bench": ["BenchOptions", "bench_indexes"],
        "index_bench_data": ["open_bench_source"],
        "index_plots": ["draw_recall_speed"],
        "baselines": ["CaptionsTable"],
        "pairs": ["evaluate_pairs"],
        "phrases": ["PhrasePicture", "read_phrases"],
        "retrieval": ["evaluate_retrieval"],
    },
)
