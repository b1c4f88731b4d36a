"""Trained weights from files: torchvision's keys in safetensors, and minidet's own with a checksum.

Weights of torchvision come as pickled .pth files, and whoever opens a pickle runs the program in it. They are converted
once, where torch is installed:

    from safetensors.torch import save_file
    from torchvision.models import vgg16

    save_file(vgg16(weights="IMAGENET1K_V1").state_dict(), "vgg16.safetensors")

They expect images as `normalize` makes them.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import nn
from ..array_file import has_checksum, read_arrays
from ..device import on_device_of

MAX_BYTES = 1 << 30  # VGG19, the largest network here, takes 575 MB

# Mean and standard deviation of ImageNet's training images, red, green, blue, in [0, 1]: torchvision's constants.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # torch's zip; a bare pickle


def load_weights(
    model: nn.Module, path: Path | str, strict: bool = True, prefix: str = "", max_bytes: int = MAX_BYTES
) -> None:
    """Copies the weights in a safetensors file into the model's parameters and buffers, converted to their dtype.

    strict     every key of the model must be in the file and no other; otherwise those that both have are copied
    prefix     take the keys that begin so, without it: "backbone." takes the backbone out of a whole model's weights
    max_bytes  a larger file is refused unread

    Raises ValueError, with the file's name, for what is no such file, is damaged (files of minidet have a checksum) or
    does not fit: keys that are missing, not expected or of the wrong shape are named, up to eight of each kind, and
    what to do about them where that can be told. The model is then as before.
    """
    arrays = read_weights(path, max_bytes)
    if prefix:
        whole = arrays
        arrays = {key.removeprefix(prefix): array for key, array in whole.items() if key.startswith(prefix)}
        if not arrays:
            raise ValueError(f"{path}: expected keys that begin with {prefix!r}, got {', '.join([*whole][:3])}, ...")
    mine = model.state_dict()
    if not arrays.keys() & mine.keys():
        strict = True  # nothing to copy is a mistake, whatever was asked for
    try:
        model.load_state_dict(arrays, strict)
    except ValueError as error:
        raise ValueError(f"{path}: {error}{_advice(mine, arrays)}") from error


def read_weights(path: Path | str, max_bytes: int = MAX_BYTES) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file by key. Raises ValueError, as `load_weights`."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise ValueError(
                f"{path}: expected at most {max_bytes:,} bytes, got {size:,}; raise max_bytes if it is right"
            )
        with path.open("rb") as file:
            start = file.read(128)
    except OSError as error:
        raise ValueError(
            f"{path}: expected a safetensors file, but {error.strerror or error}; minidet/backbones/weights.py says "
            "how torchvision's weights become one"
        ) from error
    # The first eight bytes of a safetensors file are the length of its header, and may be those of a pickle: but then
    # comes the header, which is JSON.
    if start.startswith(PICKLES) and start[8:9] != b"{":
        raise ValueError(
            f"{path}: expected a safetensors file, got a pickled one, which is never opened: a pickle can run any "
            "program; convert it where torch is installed: safetensors.torch.save_file(torch.load(path, "
            'weights_only=True), "weights.safetensors")'
        )
    if has_checksum(start):
        return read_arrays(path, max_bytes)[0]
    try:
        with safe_open(path, framework="np") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dict)
    except (SafetensorError, TypeError, AttributeError) as error:  # the latter: dtypes that NumPy does not have
        raise ValueError(f"{path}: expected a safetensors file of NumPy's dtypes, but {error}") from error


def check_sha256(path: Path, expected: str) -> None:
    """Raises ValueError unless the file's SHA-256 is the expected one."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise ValueError(f"{path}: expected the file with SHA-256 {expected}, got {found}; install minidet anew")


def normalize(images: Any) -> Any:
    """Images (N, 3, H, W) in [0, 1], RGB, as the weights of torchvision expect them: (images - mean) / std."""
    if images.dtype.kind != "f":
        raise TypeError(f"normalize: expected images of floats in [0, 1], got {images.dtype}; divide them by 255 first")
    mean, std = (
        on_device_of(np.array(values, images.dtype).reshape(3, 1, 1), getattr(images, "data", images))
        for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return (images - mean) / std


def _advice(my_arrays: Mapping[str, Any], their_arrays: Mapping[str, Any]) -> str:
    """What to do about keys that do not fit, if that can be told."""
    mine, theirs = set(my_arrays), set(their_arrays)
    missing = mine - theirs
    if missing and not theirs - mine and all(key.endswith(".num_batches_tracked") for key in missing):
        return "; files of old programs lack num_batches_tracked, which only counts: strict=False leaves it as it is"
    in_file, in_model = _common_prefix(mine - theirs, theirs - mine), _common_prefix(theirs - mine, mine - theirs)
    if in_file:
        for key, array in my_arrays.items():
            found = np.shape(their_arrays.get(in_file + key, array))
            if found != array.shape:
                return (
                    f"; the file's keys begin with {in_file!r}, but prefix={in_file!r} will not do for a network of "
                    f"other sizes: {key}: expected {array.shape}, got {found}"
                )
        return f"; the file's keys begin with {in_file!r}: use prefix={in_file!r}"
    if in_model:
        return f"; the model's keys begin with {in_model!r}: load them into model.{in_model[:-1]}"
    if missing and not theirs & mine:
        return "; no key fits, are they another network's weights?"
    return ""


def _common_prefix(short: set[str], long: set[str]) -> str:
    """The "path." that, put before most of the short keys, makes long ones; "" if there is none."""
    found = Counter(
        key[: -len(end)]
        for key in long
        for end in (key.split(".", depth)[-1] for depth in range(1, key.count(".") + 1))
        if end in short
    )
    prefix, count = found.most_common(1)[0] if found else ("", 0)
    return prefix if 2 * count > len(short) else ""
