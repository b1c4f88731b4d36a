"""Metrics on arrays."""

from .coco import CocoCurves, coco_curves, evaluate_coco
from .detection_errors import DetectionErrors, confusion_matrix, detection_errors, worst_errors
from .heatmaps import (
    area,
    average_drop,
    deletion_curve,
    insertion_curve,
    parameter_randomization,
    pointing_game,
    rank_correlation,
)
from .localization import localization_metrics
from .pose import joint_table, pcp, pdj_curve, pose_metrics
from .proposals import best_overlaps, mean_average_best_overlap, proposal_recall
from .results import read_results, write_results
from .stage_times import STAGES, mean_stage_seconds, stage_seconds
from .voc import VocCurve, evaluate_voc, voc_curves
from .weak_localization import (
    best_threshold,
    box_accuracy,
    max_box_acc,
    max_box_acc_v2,
    weak_localization_metrics,
)

__all__ = [
    "STAGES",
    "CocoCurves",
    "DetectionErrors",
    "VocCurve",
    "area",
    "average_drop",
    "best_overlaps",
    "best_threshold",
    "box_accuracy",
    "coco_curves",
    "confusion_matrix",
    "deletion_curve",
    "detection_errors",
    "evaluate_coco",
    "evaluate_voc",
    "insertion_curve",
    "joint_table",
    "localization_metrics",
    "max_box_acc",
    "max_box_acc_v2",
    "mean_average_best_overlap",
    "mean_stage_seconds",
    "parameter_randomization",
    "pcp",
    "pdj_curve",
    "pointing_game",
    "pose_metrics",
    "proposal_recall",
    "rank_correlation",
    "read_results",
    "stage_seconds",
    "voc_curves",
    "weak_localization_metrics",
    "worst_errors",
    "write_results",
]
