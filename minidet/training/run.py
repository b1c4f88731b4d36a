"""The folder of a run: everything that one training writes, and nothing outside it.

config.json          system, data, seed, every setting          log.csv          losses and metrics
environment.json     versions, processor, threads               losses.png       their curves
best.safetensors     weights of the best epoch                  predictions.png  predictions beside the truth
last.safetensors     weights after the last step                metrics.json     the result; written last
checkpoints/         the full state, for --resume, and the lock of the process that trains
and what the system's `prepare` and `complete` keep, under names of their own
"""

import csv
import errno
import io
import json
import os
import platform
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from minidet.array_file import CheckpointError, read_arrays
from minidet.data.files import read_limited, write_atomic
from minidet.training.system import SYSTEMS, load_system
from minidet.version import __version__

MAX_CONFIG_BYTES = 1 << 20
# What write_atomic leaves when it is killed: hidden, the name of the file it was to become, eight random letters.
_LEFTOVER = re.compile(
    r"\.(config\.json|environment\.json|metrics\.json|log\.csv|losses\.png|predictions\.png|anomaly\.txt"
    r"|(best|last|step-\d+)\.safetensors)\.\w{8}"
)
# What a run is: the same when it is resumed, and when its weights are used. The data may be moved.
_IDENTITY = ("system", "seed", "kernels", "digests", "classes", "settings")
PACKAGES = ("numpy", "scipy", "numba", "llvmlite", "pillow", "safetensors", "tqdm", "matplotlib")
PACKAGES += ("cupy-cuda12x", "cupy-cuda13x")  # as CuPy is called where it is installed


class RunError(ValueError):
    """A folder that is not what the command needs. The message names it and says what to do."""


_locks: list[int] = []  # open files: a process keeps its locks until it ends, however it ends


class Run:
    """One run's folder. `create_run` makes a new one, `open_run` opens what is there."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder, self.config = folder, config
        self.checkpoints = folder / "checkpoints"

    def path(self, name: str) -> Path:
        return self.folder / name

    @property
    def finished(self) -> bool:
        return self.path("metrics.json").is_file()

    @property
    def data(self) -> Path:
        """The data set's folder: relative to the run where it lies inside, so that both can be moved together."""
        return self.folder / self.config["data"]

    def write_json(self, name: str, content: Any) -> None:
        write_atomic(self.path(name), json.dumps(content, indent=2) + "\n")

    def write_picture(self, name: str, image: np.ndarray) -> None:
        write_atomic(self.path(name), encode_png(image))

    def write_log(self, rows: list[dict[str, Any]]) -> None:
        """All rows as log.csv; a column for every key, empty where a row has no such value."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO()
        table = csv.DictWriter(text, columns, lineterminator="\n")
        table.writeheader()
        table.writerows({key: _shown(value) for key, value in row.items()} for row in rows)
        write_atomic(self.path("log.csv"), text.getvalue())

    def lock(self) -> None:
        """Makes this the only process that trains in the folder. Raises RunError if another one does."""
        lock_folder(self.folder)

    def read_weights(self, name: str) -> dict[str, np.ndarray]:
        """The "best" or "last" weights. Raises CheckpointError if they are damaged or of another run."""
        return self.read_result(name)[0]

    def read_result(self, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The "best" or "last" weights, and what was saved with them. Raises as read_weights."""
        path = self.path(f"{name}.safetensors")
        arrays, saved = read_arrays(path)
        if not {"system", "classes", "settings"} <= saved.keys():
            raise CheckpointError(f"{path}: expected the weights of a run, got a file of another kind")
        self.compare(saved, path.name)
        return arrays, saved

    def compare(self, saved: Mapping[str, Any], source: str) -> None:
        """Raises RunError, with the key, unless config.json still says what `saved` does, which `source` remembers."""
        for key in _IDENTITY:
            if key in saved and saved[key] != self.config.get(key):
                name, then, now = _first_difference(key, saved[key], self.config.get(key))
                raise RunError(
                    f"{self.path('config.json')}: expected {name} to be {then!r:.80} as in {source}, got {now!r:.80}; "
                    "put it back, or start a new run"
                )

    def environment_changes(self, device: str = "cpu") -> list[str]:
        """What is no longer as environment.json says, in words: versions, processor, threads, device."""
        try:
            before = json.loads(read_limited(self.path("environment.json"), MAX_CONFIG_BYTES))
        except (ValueError, RecursionError):
            return []
        then, now = _flat(before), _flat(describe_environment(device))
        changed = [key for key in then | now if then.get(key) != now.get(key)]
        return [f"{key} was {then.get(key)} and is {now.get(key)}" for key in changed]

    def remove_leftovers(self) -> None:
        """Deletes the temporary files of writes that were killed."""
        for folder in (self.folder, self.checkpoints):
            for path in folder.iterdir():
                if _LEFTOVER.fullmatch(path.name):
                    path.unlink()


def create_run(folder: Path | str, config: dict[str, Any], device: str = "cpu") -> Run:
    """A new run in a new or empty folder, where a data set in `folder/data` may be already.

    config: {"system", "data", "seed", "classes", "settings": {...}}, and what a resumed run must find unchanged:
    "digests" of the splits, "kernels". Raises RunError if something else is there.
    """
    folder = Path(folder)
    claim_run_folder(folder)
    run = Run(folder, config)
    run.remove_leftovers()  # of a start that was killed at once
    run.write_json("environment.json", describe_environment(device))
    run.write_json("config.json", config)  # last: with it the folder is a run
    return run


def claim_run_folder(folder: Path) -> None:
    """Makes the folder for a new run, for this process alone. Raises RunError if it is not free."""
    check_free(folder)
    lock_folder(folder)
    check_free(folder)  # again: another process may have had it in between


def lock_folder(folder: Path) -> None:
    """Takes the lock of a run's folder, which is made, until this process ends; kill -9 frees it too.

    Raises RunError if another process has it. Where there are no such locks (Windows, some network drives) nothing is
    taken.
    """
    path = folder / "checkpoints" / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        return
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    if any(os.path.sameopenfile(file, held) for held in _locks):
        os.close(file)
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise RunError(f"another process trains in {folder}; wait until it ends, or name another folder") from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    _locks.append(file)


def check_free(folder: Path) -> None:
    """Raises RunError unless a new run can be started in the folder."""
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder}: expected a folder to write the run into, but there is a file of that name")
    if (folder / "config.json").is_file():
        if (folder / "metrics.json").is_file():
            raise RunError(f"{folder}: holds a finished run; name a new folder with --out")
        raise RunError(f"{folder}: holds an unfinished run; continue it with --resume or name a new folder with --out")
    ours = {"data", "checkpoints", "environment.json"}  # the latter two: of a start that was killed at once
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    others = [name for name in names if name not in ours and not _LEFTOVER.fullmatch(name)]
    if others:
        raise RunError(
            f"{folder}: expected a new or empty folder or a run to --resume, but it holds {', '.join(others[:5])}; "
            "name a new folder with --out"
        )


def open_run(folder: Path | str) -> Run:
    """The run in a folder. Raises RunError if there is none."""
    folder = Path(folder)
    path = folder / "config.json"
    if folder.is_file():
        raise RunError(
            f"{folder}: expected the folder of a run, got a file; name the folder that `minidet train` wrote"
        )
    if not path.is_file():
        raise RunError(f"{folder}: expected the folder of a run, with a config.json; make one with `minidet train`")
    try:
        config = json.loads(read_limited(path, MAX_CONFIG_BYTES))
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: expected JSON, but {error}; the file is damaged, start a new run") from error
    kinds = {"system": str, "data": str, "seed": int, "classes": list, "settings": dict}
    for key, kind in kinds.items():
        if not isinstance(config, dict) or not isinstance(config.get(key), kind):
            raise RunError(f"{path}: expected {key!r} of type {kind.__name__}; was it written by `minidet train`?")
    try:
        _validate(config)
    except ValueError as error:
        raise RunError(f"{path}: {error}; put back what `minidet train` wrote") from error
    return Run(folder, config)


def _validate(config: dict[str, Any]) -> None:
    """Raises ValueError, with the key, for values that no run can have."""
    if isinstance(config["seed"], bool) or config["seed"] < 0:
        raise ValueError(f"seed: expected a whole number from 0 on, got {config['seed']}")
    classes, digests = config["classes"], config.get("digests", {})
    if len(classes) < 2 or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"classes: expected the background's name and at least one more, got {classes!r:.80}")
    if not isinstance(digests, dict):
        raise ValueError(f"digests: expected one for each split, got {digests!r:.80}")
    if config["system"] in SYSTEMS:
        load_system(config["system"]).validate(config["settings"])


def describe_environment(device: str = "cpu") -> dict[str, Any]:
    """What the run's speed, and in the last bits its numbers, depend on. device: where it computes."""
    from minidet.device import describe_device
    from minidet_kernels import current

    environment = {
        "minidet": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": processor_name(),
        "cores": usable_cores(),
        "device": describe_device(device),
        "kernels": current(),
        "packages": {name: version for name in PACKAGES if (version := installed_version(name))},
    }
    if current() == "cpu":
        from minidet_kernels.compiler import describe

        environment["compiler"] = describe()
    return environment


def installed_version(package: str) -> str | None:
    """A package's version, None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name() -> str:
    """The processor as its maker calls it, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def encode_png(image: np.ndarray) -> bytes:
    """(H, W, 3) uint8 as the bytes of a PNG file."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(image).save(content, format="PNG", compress_level=3)
    return content.getvalue()


def _flat(environment: Any) -> dict[str, Any]:
    """{name: value} without the tables that they stand in."""
    flat: dict[str, Any] = {}
    for key, value in environment.items() if isinstance(environment, dict) else ():
        flat |= value if isinstance(value, dict) else {key: value}
    return flat


def _first_difference(key: str, then: Any, now: Any) -> tuple[str, Any, Any]:
    """(name, value, value) of what differs: in a table its first entry, else the whole."""
    if isinstance(then, dict) and isinstance(now, dict):
        values = {name: (then.get(name, "nothing"), now.get(name, "nothing")) for name in then | now}
        return next((f"{key}.{name}", *pair) for name, pair in values.items() if pair[0] != pair[1])
    return key, then, now


def _shown(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
