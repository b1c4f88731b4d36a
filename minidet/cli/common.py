"""What several commands share: options, data sets, tables."""

import argparse
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

SPLITS = ("train", "val", "test")
MOST_FLAT = 1e-3  # of all boxes may be without an area, and are left out; more are no slips
DATA_SEED = 0  # of the data set that is made where none is given: published, so that results can be compared


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """--device and --kernels."""
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda", "emulated"),
        default="cpu",
        help="where the network computes (default: cpu); emulated: CUDA's sources on the CPU, some fifty times slower",
    )
    parser.add_argument(
        "--kernels",
        choices=("reference", "cpu", "cuda"),
        help="version of the kernels: reference is plain NumPy, to be read and stepped through (default: the fastest)",
    )


def add_debug_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--debug", action="store_true", help="show where in the program an error happened")


def add_seed_option(parser: argparse.ArgumentParser, default: int | None = 0) -> None:
    parser.add_argument("--seed", type=seed, default=default, metavar="S", help="of all random numbers (default: 0)")


def add_set_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting; a wrong key lists them all with their defaults",
    )


def names_in(classes: str | None) -> list[str] | None:
    """Those that --classes lists."""
    return None if classes is None else [name.strip() for name in classes.split(",")]


def add_out_option(parser: argparse.ArgumentParser, default: str, what: str) -> None:
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"folder for {what} (default: {default})")


def seed(text: str) -> int:
    """An argparse type: a whole number from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 on, got {text!r}")
    return int(text)


# What `use_machine` changed for the length of a command; `main` puts it back.
machine = ExitStack()


def use_machine(args: argparse.Namespace) -> str:
    """Chooses kernels and device as the options say. Returns the name that Tensors have for the device, "cpu" or
    "cuda". Raises ValueError, saying why, for what cannot run here."""
    import minidet_kernels
    from minidet.device import why_no_gpu

    on_gpu = args.device != "cpu"
    if args.kernels is not None and on_gpu != (args.kernels == "cuda"):
        fitting = "cuda" if on_gpu else "reference or cpu"
        raise ValueError(
            f"--kernels {args.kernels}: expected {fitting} with --device {args.device}, whose arrays no others take"
        )
    if args.device == "emulated":
        from minidet_kernels import emulator

        if emulator.why_not() is not None:
            raise ValueError(f"--device emulated: cannot run here, {emulator.why_not()}")
        machine.enter_context(emulator.emulated())
    elif args.device == "cuda" and why_no_gpu() is not None:
        raise ValueError(f"--device cuda: expected cpu or emulated, because no GPU can be used: {why_no_gpu()}")
    elif args.kernels is not None:
        reason = minidet_kernels.available()[args.kernels]
        if reason is not None:
            raise ValueError(f"--kernels {args.kernels}: cannot run here, {reason}")
        machine.enter_context(minidet_kernels.use(args.kernels))
    return "cuda" if on_gpu else "cpu"


def make_training_data(folder: Path, system: Any, settings: Mapping[str, Any]) -> Path:
    """The textured data set that the system is trained on where the user gives none; made once, then reused."""
    from minidet.data import make_dataset

    splits = {"train": settings["images"], "val": settings["val_images"], "test": settings["test_images"]}
    return make_dataset(
        folder, task=system.task, level="textured", seed=DATA_SEED, size=settings["size"], splits=splits
    )


def check_there(folder: Path) -> None:
    """Raises ValueError if there is no such data set, before anything is done that takes long."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder; `minidet data make` makes a data set")


def open_splits(
    folder: Path, system: Any, settings: Mapping[str, Any], classes: Sequence[str] | None = None
) -> dict[str, Any]:
    """{"train": Dataset, "val": Dataset, and "test" where it is there}, every image and annotation looked at: what the
    system cannot learn from ends the command now, and not in the middle of an epoch.

    classes: only the objects of these, and for training only images that have any; by default all there are."""
    from minidet.data import AnnotationError, find_split, find_splits

    check_there(folder)
    there = {name: split for name in SPLITS if (split := find_split(folder, name))}
    refuse_years({split.removeprefix(name) for name, split in there.items()}, folder)
    if not {"train", "val"} <= there.keys():
        raise ValueError(
            f"{folder}: expected a data set with the splits train and val, found "
            f"{', '.join(find_splits(folder)) or 'none'}; `minidet data make` shows what one looks like"
        )
    try:
        splits = {name: open_split(folder, name, system) for name in there}
    except AnnotationError as error:
        error.add_note(
            f"`minidet data check {shlex.quote(str(folder))}` lists what else is wrong, and what may be the cause"
        )
        raise
    for name, split in splits.items():
        if len(split) == 0:
            raise ValueError(f"{folder}: expected images in every split, found none in {name}; add some or remove it")
        if split.classes != splits["train"].classes:
            raise ValueError(
                f"{folder}: expected the same classes in all splits, got {', '.join(splits['train'].classes[1:])} in "
                f"train and {', '.join(split.classes[1:])} in {name}; list them all in {folder / 'classes.txt'}, one a "
                "line, or in every COCO file"
            )
    if classes:
        splits = {name: only_classes(split, classes, name) for name, split in splits.items()}
    for split in splits.values():
        split.verify()
        system.check(split, settings)
    if not any(len(record.boxes) for record in splits["train"].records):
        raise ValueError(
            f"{folder}: expected objects to learn in the split train, found none in its {len(splits['train'])} images; "
            f"`minidet data check {shlex.quote(str(folder))}` shows what was read"
        )
    return splits


def only_classes(split: Any, classes: Sequence[str], name: str) -> Any:
    """The objects of these classes; of the split train only images that have any."""
    some = split.of_classes(classes, empty=name != "train")
    if not any(len(record.boxes) for record in some.records):
        raise ValueError(f"--classes: expected objects of {', '.join(classes)}, found none in the split {name}")
    return some


def open_split(folder: Path, name: str, system: Any) -> Any:
    """One split as the system looks at it. A few boxes without an area, of which COCO's own files have two, are left
    out and told of; more of them, and all else that is wrong, are errors."""
    from minidet.data import open_dataset
    from minidet.data.formats.record import BoxError

    flat: list[BoxError] = []

    def keep_flat_boxes(error: ValueError) -> None:
        if not (isinstance(error, BoxError) and error.flat):
            raise error
        flat.append(error)

    dataset = open_dataset(folder, name, masks=system.masks, joints=system.joints, on_problem=keep_flat_boxes)
    if len(flat) > MOST_FLAT * sum(len(record.boxes) for record in dataset.records):
        raise flat[0]
    if flat:
        print(f"note: boxes without an area are left out, {len(flat)} in {name}; the first is {flat[0]}")
    return dataset


def refuse_years(years: set[str], folder: Path) -> None:
    """COCO's splits of one year overlap with those of another: what is learned must not be measured."""
    if len(years) > 1:
        raise ValueError(
            f"{folder}: expected splits of one year, got {', '.join(sorted(year or 'none' for year in years))}, which "
            "may have images in common; put those of one year into a folder of their own"
        )


def load_trained(folder: Path, weights: str, device: str = "cpu"):
    """(system, run, model) of a run, with its best or last weights, ready to predict on "cpu" or "cuda"."""
    from minidet.random import manual_seed
    from minidet.training import load_system, open_run

    run = open_run(folder)
    system = load_system(run.config["system"])
    path = run.path(f"{weights}.safetensors")
    if not path.is_file():
        raise ValueError(f"{folder}: has no {path.name} yet; train it first, or continue it with --resume")
    arrays = run.read_weights(weights)
    model = system.build(tuple(run.config["classes"]), run.config["settings"], manual_seed(0))
    model.load_state_dict(arrays)
    return system, run, model.eval().to(device)


def default_split(data: Path) -> str:
    """The split that is measured on where the user names none: test, or val if there is no test. Raises ValueError
    where there is no such data set."""
    from minidet.data import find_split

    check_there(data)
    return "test" if find_split(data, "test") else "val"


def open_measured(system: Any, run: Any, data: Path, split: str) -> Any:
    """The split of a data set that a run is measured on, every image and annotation looked at. Of more classes than
    the run was trained on, the objects of the others do not count."""
    dataset, classes = open_split(data, split, system), run.config["classes"]
    if len(dataset) == 0:
        raise ValueError(f"{data}: expected images to measure on, found none in the split {split}; add some")
    if not set(classes) <= set(dataset.classes):
        raise ValueError(
            f"{data}: expected the classes that {run.folder} was trained on, {', '.join(classes[1:])}, "
            f"got {', '.join(dataset.classes[1:])}"
        )
    if classes != list(dataset.classes):
        dataset = dataset.of_classes(classes[1:])
    dataset.verify()
    system.check(dataset, run.config["settings"])
    return dataset


def claim_folder(folder: Path, command: str) -> None:
    """Makes the folder for a command's results and marks it with a hidden, empty file. Raises ValueError if it holds
    somebody else's files: it must be new, empty, or have the mark of an earlier run of the same command."""
    mark = folder / f".minidet-{command}"
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out: expected a folder, but {folder} is a file")
    foreign = [path.name for path in folder.iterdir()] if folder.is_dir() and not mark.is_file() else []
    if foreign or (folder / "config.json").is_file():
        raise ValueError(
            f"--out: expected a new or empty folder, but {folder} holds {', '.join(sorted(foreign)[:5]) or 'a run'}, "
            "which might be overwritten; name another"
        )
    folder.mkdir(parents=True, exist_ok=True)
    mark.touch()


def class_map(dataset: Any) -> str:
    """Which class has which label, and COCO's id of it where that is another: lines of "label name (id)"."""
    ids = dataset.category_ids or range(1, len(dataset.classes))
    told = [
        f"{label} {name}" + (f" (id {identity})" if identity != label else "")
        for label, (name, identity) in enumerate(zip(dataset.classes[1:], ids, strict=True), start=1)
    ]
    whole = ", ".join(text.replace(" ", "\0") for text in told)  # no line ends within a name
    lines = textwrap.wrap(whole, width=110, break_long_words=False, break_on_hyphens=False)
    return "classes: " + "\n         ".join(lines).replace("\0", " ")


def print_table(values: Mapping[str, Any], note: str = "") -> None:
    """Names and values, one a line, numbers aligned; under them the note."""
    width = max(map(len, values), default=0)
    for name, value in values.items():
        print(f"  {name:<{width}}  {f'{value:.4f}' if isinstance(value, float) else value}")
    if note:
        print(f"  ({note})")
