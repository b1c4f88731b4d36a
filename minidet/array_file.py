"""Arrays and their description in one file that is either whole or refused.

The file is safetensors. Its one metadata entry, "minidet", reads `sha256:<digest> <JSON>`: the digest covers every
byte of the file but its own 64 digits, the header included, so a file cut short or with one wrong bit anywhere is
refused by name. Files are replaced atomically: after a crash there is the old content or the new one, never a mixture.
Nothing is ever unpickled.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .data.files import write_atomic
from .device import to_numpy

MAX_BYTES = 8 << 30  # VGG16 with Adam's two averages takes 1.7 GB; a larger file than this one is a mistake

_ENTRY = "minidet"
_MARK = b"sha256:"
_DIGITS = 64
_MARK_WITHIN = 128  # the mark stands at the start of the header; no need to search the whole file


class CheckpointError(ValueError):
    """A file that cannot be trusted. The message names it and says what to do."""


def write_arrays(path: Path | str, arrays: Mapping[str, np.ndarray], metadata: dict) -> None:
    """Writes arrays by name, and metadata (anything JSON can hold), atomically. Equal contents give equal bytes."""
    from safetensors.numpy import save

    text = f"sha256:{'0' * _DIGITS} {json.dumps(metadata)}"
    content = bytearray(save({name: np.asarray(to_numpy(a), order="C") for name, a in arrays.items()}, {_ENTRY: text}))
    start = _digest_start(content)
    content[start : start + _DIGITS] = _digest(content, start)
    write_atomic(path, content)
    sync_folder(Path(path).parent)


def read_arrays(path: Path | str, max_bytes: int = MAX_BYTES) -> tuple[dict[str, np.ndarray], dict]:
    """The arrays and the metadata that write_arrays wrote. Raises CheckpointError unless every byte is as written."""
    from safetensors.numpy import load

    path = Path(path)
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise CheckpointError(f"{path}: expected at most {max_bytes:,} bytes, got {size:,}; is it a checkpoint?")
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: expected a file of weights, but {error.strerror or error}") from error
    start = _digest_start(content)
    if start < 0:
        raise CheckpointError(
            f"{path}: expected a safetensors file with minidet's checksum, got {len(content):,} bytes without one; "
            "it is damaged, cut short or of another program"
        )
    if _digest(content, start) != content[start : start + _DIGITS]:
        raise CheckpointError(
            f"{path}: the checksum does not fit its {len(content):,} bytes; the file is damaged or cut short, "
            "use an older checkpoint or another copy"
        )
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = json.loads(header["__metadata__"][_ENTRY][len(_MARK) + _DIGITS :])
        if not isinstance(metadata, dict):
            raise TypeError(f"its description is of type {type(metadata).__name__}")
        return dict(sorted(load(content).items())), metadata  # load's order is another one each time
    except Exception as error:  # a checksum anybody can compute; the parsers' errors have nothing else in common
        told = f"{type(error).__name__}: {error}"  # a KeyError alone says no more than a word
        raise CheckpointError(f"{path}: expected a file as minidet writes it, but {told}") from error


def has_checksum(content: bytes) -> bool:
    """Whether a file that begins so is one of write_arrays'; _MARK_WITHIN bytes are enough."""
    return _digest_start(content) >= 0


def sync_folder(folder: Path) -> None:
    """Makes sure that a renamed file is found under its new name after a power cut, where the system allows that."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest_start(content: bytes | bytearray) -> int:
    """Where the digits of the digest begin; -1 if there are none."""
    mark = content.find(_MARK, 0, _MARK_WITHIN)
    return mark + len(_MARK) if mark >= 0 else -1


def _digest(content: bytes | bytearray, start: int) -> bytes:
    """The digest of all bytes but its own digits, as digits."""
    view = memoryview(content)
    digest = hashlib.sha256(view[:start])
    digest.update(view[start + _DIGITS :])
    return digest.hexdigest().encode()
