"""Selective Search's boxes of a whole data set, searched once and kept in a file."""

import hashlib
import json
import time
import warnings
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..array_file import CheckpointError, read_arrays, write_arrays
from ..data import Dataset
from .selective_search import Mode, as_mode, selective_search

VERSION = 1  # raise it when the same image no longer gives the same boxes

FILES = "selective-search-*.safetensors"  # the star: a digest of what the boxes are of

# All images so far are written this often: an interruption costs at most so much, and the next call goes on from there.
SECONDS_PER_SAVE = 30


def proposals_for(
    dataset: Dataset,
    folder: Path | str,
    mode: str | Mode = "fast",
    seed: int = 0,
    limit: int | None = 2000,
    progress: bool = True,
) -> list[np.ndarray]:
    """The boxes of each of the data set's images, (P, 4) float32, as `selective_search` returns them.

    folder: made if it is not there; one file in it holds the boxes of one data set (or split), mode, seed and limit.
    The file says which, data included, and is taken only for exactly these. It is written whole or not at all, and
    again and again while the search goes on, so that an interrupted search continues where it was. A damaged file, or
    one of something else, is told of in a warning and made anew. The boxes of an image do not depend on the others.
    """
    mode, folder = as_mode(mode), Path(folder)
    described = {"version": VERSION, "data": dataset.digest(), **asdict(mode), "seed": seed, "limit": limit}
    described = json.loads(json.dumps(described))  # tuples become lists, as they do in the file
    name = hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]
    path = folder / FILES.replace("*", name)
    found = _read(path, described, len(dataset)) if path.exists() else []
    if len(found) == len(dataset):
        return found
    folder.mkdir(parents=True, exist_ok=True)
    saved = time.monotonic()
    indices = range(len(found), len(dataset))
    with tqdm(indices, "Selective Search", len(dataset), initial=len(found), disable=not progress or None) as bar:
        for index in bar:
            found.append(selective_search(dataset[index].image, mode, seed, limit))
            if time.monotonic() - saved > SECONDS_PER_SAVE:
                _write(path, described, found)
                saved = time.monotonic()
    _write(path, described, found)
    return found


def kept_in(folder: Path | str, digests: Collection[str]) -> dict[str, int]:
    """How many "images" of the data sets with these digests a folder's files hold boxes of, and their "bytes". Damaged
    files count as if they were not there."""
    images = size = 0
    for path in Path(folder).glob(FILES):
        try:
            arrays, described = read_arrays(path)
        except CheckpointError:
            continue
        if described.get("data") in digests:
            images, size = images + len(arrays["offsets"]) - 1, size + path.stat().st_size
    return {"images": images, "bytes": size}


def _write(path: Path, described: dict, found: list[np.ndarray]) -> None:
    """All boxes one after the other, and where those of each image begin and end."""
    ends = np.cumsum([0, *map(len, found)])
    write_arrays(path, {"boxes": np.concatenate([np.zeros((0, 4), np.float32), *found]), "offsets": ends}, described)


def _read(path: Path, described: dict, images: int) -> list[np.ndarray]:
    """The boxes of the first images, or of none, with a warning, if the file is not what it should be."""
    try:
        arrays, metadata = read_arrays(path)
        if metadata != described:
            differing = [key for key in described if metadata.get(key) != described[key]]
            raise CheckpointError(f"{path}: expected boxes of this data set and mode, but {differing} differ")
        boxes, offsets = arrays["boxes"], arrays["offsets"]
        if len(offsets) > images + 1 or boxes.shape != (offsets[-1], 4) or boxes.dtype != np.float32:
            raise CheckpointError(f"{path}: expected the boxes (P, 4) of {images} images, got {boxes.shape}")
        return np.split(boxes, offsets[1:-1]) if len(offsets) > 1 else []
    except (CheckpointError, KeyError) as error:
        warnings.warn(f"{error}; its boxes are searched anew, and the file is replaced", RuntimeWarning, stacklevel=3)
        return []
