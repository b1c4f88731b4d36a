"""The states of a training that survive a crash: which files a folder has, and which of them is good."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from minidet.array_file import CheckpointError, read_arrays, write_arrays

KEPT = 2  # checkpoints: should the newest turn out to be damaged, the one before it is still there


def save_checkpoint(folder: Path, step: int, arrays: Mapping[str, np.ndarray], metadata: dict) -> Path:
    """Writes the state after `step` steps into the folder and drops all but the KEPT newest up to this one."""
    path = folder / f"step-{step:08d}.safetensors"
    write_arrays(path, arrays, metadata)
    # A file of a later step can only be a damaged one that was passed over on resume: it does not count.
    for old in [other for other in list_checkpoints(folder) if other.name <= path.name][KEPT:]:
        old.unlink()
    return path


def load_newest(
    folder: Path, tell: Callable[[str], None], restore: Callable[[dict[str, np.ndarray], dict], None] | None = None
) -> tuple[dict[str, np.ndarray], dict, Path] | None:
    """Arrays, metadata and path of the newest good checkpoint; None where there is none at all.

    tell: called with one line for each newer file that was refused. restore: what takes over arrays and metadata; a
    CheckpointError of it refuses the file too. Raises CheckpointError if all were refused.
    """
    refused = []
    for path in list_checkpoints(folder):
        try:
            arrays, metadata = read_arrays(path)
            if restore is not None:
                try:
                    restore(arrays, metadata)
                except CheckpointError as error:
                    raise CheckpointError(f"{path}: {error}") from error
            return arrays, metadata, path
        except CheckpointError as error:
            refused.append(str(error))
            tell(f"refused {error}")
    if refused:
        raise CheckpointError(f"{folder}: no good checkpoint among {len(refused)}; start anew in another folder")
    return None


def list_checkpoints(folder: Path) -> list[Path]:
    """The folder's checkpoints, newest first."""
    return sorted(folder.glob("step-*.safetensors"), reverse=True)
