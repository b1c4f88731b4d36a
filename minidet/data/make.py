"""Write miniscene data sets as files: pictures, and their annotations in all the formats that users know.

images/SPLIT/000000.png                          the pictures
annotations/instances_SPLIT.json                 COCO (person_keypoints_SPLIT.json for figures)
voc/SPLIT/000000.xml                             PASCAL VOC
labels/SPLIT/000000.txt, classes.txt             YOLO
lsp/SPLIT/joints.mat                             Leeds Sports Pose, for single figures
dataset.json                                     what was made; written last
"""

import hashlib
import json
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from minidet.data.files import alone_in, leftovers, write_atomic
from minidet.data.formats.coco import write_coco
from minidet.data.formats.lsp import write_lsp
from minidet.data.formats.record import BACKGROUND, Record
from minidet.data.formats.voc import write_voc
from minidet.data.formats.yolo import write_yolo
from minidet.data.images import write_image
from minidet.data.joints import LSP_JOINTS
from minidet.data.miniscene import CLASSES, LEVELS, SCENES, Scene, make_scene

GENERATOR_VERSION = 1  # raise it whenever the same seed no longer gives the same pictures

PEOPLE = ("pose", "people")  # tasks whose annotations are of figures

SPLITS = {"train": 0.7, "val": 0.15, "test": 0.15}

# How often the misleading background patch agrees with the class, in training and in the test where it says nothing.
CUE_IN_TRAINING, CUE_IN_TEST = 0.95, 0.0
CUE_SIDES = (16, 32)  # smaller objects than usual, of 64 pixels, so that they never cover the patch

SIZES = (16, 4096)  # pixels: below, shapes cannot be told apart; above, one scene's masks need hundreds of megabytes
MAX_IMAGES = 10_000_000  # more is a typing error: at 64 x 64 pixels they fill about 100 GB

_FINISHED, _UNFINISHED = "dataset.json", "unfinished.json"
_CONTENT = ("images", "annotations", "voc", "labels", "lsp", "classes.txt")


def make_dataset(
    folder: Path | str,
    images: int = 1000,
    task: str = "detection",
    level: str = "textured",
    seed: int = 0,
    splits: Mapping[str, float] | None = None,
    size: int | None = None,
    format: str = "png",
    cue: bool = False,
    progress: bool = True,
) -> Path:
    """Make a data set of generated scenes in `folder` and return the folder.

    images: in all splits together. task: "detection", "localization", "pose" of one person or "people"
    (miniscene.SCENES). level: "textured" or "flat". splits: fractions of `images` that add up to 1 (SPLITS by default),
    or whole numbers of images; a split with the fraction or number 0 is left out, every other gets at least one image.
    size: H = W in pixels, the task's own by default; objects grow with it. format: "png" or "jpg".
    cue: paint a patch into the background that goes with the class in all splits but "test" (see make_scene).

    Every scene depends on (seed, split, its number) alone: more images leave the first ones as they are.
    If the folder holds the same data set already, nothing is done; an interrupted one is made anew.
    Raises FileExistsError if the folder holds anything else or another process is making a data set in it, ValueError
    for settings that make no sense.
    """
    if task not in SCENES or level not in LEVELS or format not in ("png", "jpg"):
        raise ValueError(
            f"make_dataset: expected task {', '.join(SCENES)}, level {', '.join(LEVELS)} and format png or jpg, got "
            f"{task!r}, {level!r} and {format!r}"
        )
    if cue and task != "localization":
        raise ValueError(f"make_dataset: expected task 'localization' with the background cue, got {task!r}")
    size = SCENES[task]["size"] if size is None else size
    if not SIZES[0] <= size <= SIZES[1]:
        raise ValueError(f"make_dataset: expected a size of {SIZES[0]} to {SIZES[1]} pixels, got {size}")
    settings = {
        "generator": "miniscene",
        "version": GENERATOR_VERSION,
        "task": task,
        "level": level,
        "seed": int(seed),
        "size": int(size),
        "format": format,
        "cue": bool(cue),
        "counts": _count_images(images, SPLITS if splits is None else splits),
        "sides_by_color": task in PEOPLE,
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if _holds(folder, settings):
        return folder
    with alone_in(folder):
        if not _holds(folder, settings):  # nor has another process made it just now
            _prepare_folder(folder, settings)
            _write_splits(folder, settings, progress)
            digest = content_digest(folder)
            write_atomic(folder / _FINISHED, json.dumps(settings | {"sha256": digest}, indent=1) + "\n")
            (folder / _UNFINISHED).unlink()
    return folder


def content_digest(folder: Path | str) -> str:
    """SHA-256 over the names and bytes of all files that make_dataset wrote, in the order of the names."""
    digest = hashlib.sha256()
    folder = Path(folder)
    paths = [path for name in _CONTENT for path in (folder / name, *(folder / name).rglob("*")) if path.is_file()]
    for name, path in sorted((path.relative_to(folder).as_posix(), path) for path in paths):
        digest.update(f"{name}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _count_images(images: int, splits: Mapping[str, float]) -> dict[str, int]:
    """Images of each split that gets some."""
    for name in splits:
        if not name.isidentifier():
            raise ValueError(f"make_dataset: expected names such as 'train' for the splits, got {name!r}")
    whole = all(isinstance(value, int) for value in splits.values())
    if min(splits.values(), default=-1) < 0 or not (whole or abs(sum(splits.values()) - 1) < 1e-6):
        raise ValueError(f"make_dataset: expected splits as fractions with sum 1 or as counts, got {dict(splits)}")
    wanted = {name: value for name, value in splits.items() if value}
    if not wanted or (not whole and images < len(wanted)):
        raise ValueError(
            f"make_dataset: expected at least one image for each of the splits {', '.join(wanted or splits)}, so "
            f"{len(wanted or splits)} or more, got {0 if whole else images}"
        )
    if (sum(wanted.values()) if whole else images) > MAX_IMAGES:
        raise ValueError(f"make_dataset: expected at most {MAX_IMAGES:,} images, got more")
    return wanted if whole else _divide(images, wanted)


def _divide(images: int, fractions: Mapping[str, float]) -> dict[str, int]:
    """Fractions of the images, rounded so that the sum stays exact and everyone gets one."""
    ends = np.rint(np.cumsum([0.0, *fractions.values()]) * images).astype(int)
    counts = dict(zip(fractions, np.diff(ends).tolist(), strict=True))
    while min(counts.values()) == 0:  # the largest has one to spare, as there are enough for all
        counts[max(counts, key=counts.get)] -= 1
        counts[min(counts, key=counts.get)] += 1
    return counts


def _holds(folder: Path, settings: dict) -> bool:
    """Whether `folder` holds the finished data set already. Raises FileExistsError if it holds another one."""
    if not (folder / _FINISHED).is_file() or (folder / _UNFINISHED).is_file():
        return False
    try:
        found = json.loads((folder / _FINISHED).read_bytes())
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("generator") != "miniscene":
        raise FileExistsError(f"{folder}: holds another data set ({_FINISHED} is not miniscene's); name a new folder")
    different = [f"{k} {found.get(k)!r}, not {v!r}" for k, v in settings.items() if found.get(k) != v]
    if different:
        raise FileExistsError(
            f"{folder}: holds another miniscene data set ({'; '.join(different)}); name a new folder or delete this"
        )
    return True


def _prepare_folder(folder: Path, settings: dict) -> None:
    """Make `folder` ready to write into, and mark it as unfinished."""
    remains = leftovers(folder, _FINISHED, _UNFINISHED, "classes.txt")
    if (folder / _UNFINISHED).is_file():  # an interrupted run of this function: all of it was made here
        (folder / _FINISHED).unlink(missing_ok=True)
        for name in _CONTENT:
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
            else:
                (folder / name).unlink(missing_ok=True)
    elif set(folder.iterdir()) - set(remains):
        raise FileExistsError(f"{folder}: expected a new or empty folder, but there are other files in it")
    for path in remains:
        path.unlink()
    write_atomic(folder / _UNFINISHED, json.dumps(settings, indent=1) + "\n")


def _scene_options(settings: dict, split: str) -> dict:
    """Keyword arguments of make_scene."""
    options = dict(SCENES[settings["task"]])
    sides = CUE_SIDES if settings["cue"] else options["sides"]
    options["sides"] = tuple(side * settings["size"] / options["size"] for side in sides)
    if settings["cue"]:
        options["cue"] = CUE_IN_TEST if split == "test" else CUE_IN_TRAINING
    return options | {"size": settings["size"], "level": settings["level"]}


def _write_splits(folder: Path, settings: dict, progress: bool) -> None:
    from tqdm import tqdm

    people = settings["task"] in PEOPLE
    classes = (BACKGROUND, "person") if people else (BACKGROUND, *CLASSES)
    write_atomic(folder / "classes.txt", "".join(f"{name}\n" for name in classes[1:]))
    (folder / "annotations").mkdir()
    with tqdm(
        total=sum(settings["counts"].values()), desc="miniscene", unit="image", disable=None if progress else True
    ) as bar:
        for split, count in settings["counts"].items():
            (folder / "images" / split).mkdir(parents=True)
            options, records = _scene_options(settings, split), []
            for index in range(count):
                scene = make_scene(
                    np.random.default_rng((settings["seed"], zlib.crc32(split.encode()), index)), **options
                )
                path = folder / "images" / split / f"{index:06d}.{settings['format']}"
                write_image(path, scene.image)
                records.append(_people_record(scene, path) if people else _objects_record(scene, path))
                bar.update()
            kind = "person_keypoints" if people else "instances"
            write_coco(
                folder / "annotations" / f"{kind}_{split}.json",
                records,
                classes,
                joint_names=LSP_JOINTS if people else None,
            )
            write_voc(folder / "voc" / split, records, classes)
            write_yolo(folder / "labels" / split, records)
            if settings["task"] == "pose":  # LSP has one person a picture
                (folder / "lsp" / split).mkdir(parents=True)
                write_lsp(folder / "lsp" / split / "joints.mat", records)


def _objects_record(scene: Scene, path: Path) -> Record:
    return Record(
        path=path,
        name=path.name,
        size=scene.image.shape[:2],
        boxes=scene.boxes,
        labels=scene.labels,
        iscrowd=scene.iscrowd,
        difficult=scene.iscrowd,  # VOC has no crowds, but it leaves difficult objects out of the evaluation
        areas=scene.masks.sum(axis=(1, 2)).astype(float),
        segmentations=list(scene.masks),
    )


def _people_record(scene: Scene, path: Path) -> Record:
    count = len(scene.person_boxes)
    return Record(
        path=path,
        name=path.name,
        size=scene.image.shape[:2],
        boxes=scene.person_boxes,
        labels=np.ones(count, np.int64),
        iscrowd=np.zeros(count, bool),
        difficult=np.zeros(count, bool),
        areas=scene.person_masks.sum(axis=(1, 2)).astype(float),
        keypoints=scene.keypoints,
        segmentations=list(scene.person_masks),
    )
