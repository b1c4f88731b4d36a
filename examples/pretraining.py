"""The backbone that comes with minidet, made anew: a small network learns to tell miniscene's six classes apart.

    python examples/pretraining.py --out pretraining-example      # two and a half minutes; again: it goes on
    python examples/pretraining.py --quick                        # seconds, to see it run

It is `minidet train classifier` with the settings below, and then the best epoch's weights in one small file: those of
the convolutions in float16, which is precise to a thousandth and half as large, the few others in float32. With
--install the file becomes minidet/backbones/tiny.safetensors, and its SHA-256 belongs into tiny.py and the README.

The same machine makes the same file, to the byte. Another processor rounds differently, and makes one as good.
"""

import hashlib
import shutil
import sys

import numpy as np

from common.arguments import parse_arguments
from minidet.array_file import write_arrays
from minidet.backbones import TinyBackbone, load_weights
from minidet.backbones.tiny import PRETRAINED, PRETRAINED_CHANNELS
from minidet.cli.common import make_training_data
from minidet.cli.train import reopen_splits, start_run
from minidet.data import open_dataset
from minidet.models.classifier import Classifier
from minidet.training import Interrupted, load_system, open_run, train

SETTINGS = {"width": PRETRAINED_CHANNELS[0], "images": 8000, "epochs": 15}
QUICK = {"width": PRETRAINED_CHANNELS[0], "images": 64, "val_images": 16, "test_images": 16, "epochs": 1}


def main() -> None:
    arguments = parse_arguments(__doc__, "pretraining-example", install="put the file in the place of minidet's")
    if arguments.quick and arguments.install:
        sys.exit("--install: expected the weights of a full training, without --quick")
    system = load_system("classifier")
    settings = [f"{key}={value}" for key, value in (QUICK if arguments.quick else SETTINGS).items()]
    folder = arguments.out / "run"
    if (folder / "config.json").is_file():
        run = open_run(folder)
        if run.config["settings"] != system.configure(settings):
            sys.exit(f"--out: {folder} is a run with other settings, one of --quick perhaps; name another folder")
        splits, resume = reopen_splits(system, run), True
    else:
        data = make_training_data(arguments.out / "data", system, system.configure(settings))
        (run, splits), resume = start_run(system, folder, data, arguments.seed, settings), False
    if not run.finished:
        try:
            train(system, run, *splits.values(), resume=resume)
        except Interrupted as stop:
            sys.exit(f"{stop}; the same command goes on")

    path = arguments.out / "tiny.safetensors"
    state = run.read_weights("best")
    arrays = {key: array.astype(np.float16) if array.ndim == 4 else array for key, array in state.items()}
    write_arrays(path, arrays, {"system": "classifier", "classes": run.config["classes"]})

    size = run.config["settings"]["size"]
    model = Classifier(TinyBackbone(PRETRAINED_CHANNELS), len(run.config["classes"]) - 1, size)
    load_weights(model, path)
    test = open_dataset(run.data, "test", masks=False)
    metrics, _ = system.evaluate(model, test, 64)
    print(f"{path}: {path.stat().st_size:,} bytes, accuracy {metrics['accuracy']:.4f} on {len(test)} test images")
    print(f"SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}")
    if arguments.install:
        shutil.copyfile(path, PRETRAINED)


if __name__ == "__main__":
    main()
