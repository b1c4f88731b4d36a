"""Metrics on arrays."""

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
from .pose import pose_metrics

__all__ = [
    "area",
    "average_drop",
    "deletion_curve",
    "insertion_curve",
    "localization_metrics",
    "parameter_randomization",
    "pointing_game",
    "pose_metrics",
    "rank_correlation",
]
