"""Metrics on arrays."""

from .localization import localization_metrics

__all__ = ["localization_metrics"]
