"""Training: from a System and data to a folder with weights, pictures and metrics.

Read step.py (one step), loop.py (an epoch of them), checkpoint.py (what survives a crash), then the rest.
"""

from minidet.array_file import CheckpointError
from minidet.training.loop import Interrupted, complete, evaluate, train
from minidet.training.run import Run, RunError, create_run, open_run
from minidet.training.state import Training, try_settings
from minidet.training.step import RefusedStepError
from minidet.training.system import SYSTEMS, System, load_system

__all__ = [
    "SYSTEMS", "CheckpointError", "Interrupted", "RefusedStepError", "Run", "RunError", "System", "Training",
    "complete", "create_run", "evaluate", "load_system", "open_run", "train", "try_settings",
]  # fmt: skip
