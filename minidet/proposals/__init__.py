"""Boxes that may hold an object, before anything is known of objects."""

from .cache import kept_in, proposals_for
from .selective_search import MODES, Hierarchy, Mode, build_hierarchies, rank, selective_search

__all__ = ["MODES", "Hierarchy", "Mode", "build_hierarchies", "kept_in", "proposals_for", "rank", "selective_search"]
