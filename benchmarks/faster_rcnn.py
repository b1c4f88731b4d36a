"""The small Faster R-CNN: against the same in torch, and on images that it never saw.

    python -m benchmarks faster_rcnn                the time of a step, as all suites
    python -m benchmarks.faster_rcnn race           both engines trained by the recipe, each in a process of its own
    python -m benchmarks.faster_rcnn race --steps 300    only their speed and memory, without detections
    python -m benchmarks.faster_rcnn --seeds 3      AP of 300 test images, joint and in four steps

The race's clock runs while batches are waited for and steps are taken; every 250 steps it stands still, and COCO's AP
of the 300 validation images is measured. Both start from one seed's weights and see the same batches in the same order.
torch's rival: torch_faster_rcnn.py. A race takes about a quarter of an hour on two cores, a seed as long.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.engines import Row

SEED = 0
CHECK = 250  # steps between two measurements of AP
GOAL = 0.80  # AP
BATCHES = 8  # of the suite
COLUMNS = ("map", "map_50", "map_75", "recall_300", "best_epoch", "train_seconds")


class Minidet:
    """A training by the recipe: what a run does in a step, and detections."""

    def __init__(self, training: Any) -> None:
        self.training, self.step = training, training.step

    def predict(self, dataset: Any) -> list[dict]:
        from minidet.training.recipes.detection import predict

        found = predict(self.training.model, dataset)
        self.training.begin_epoch()
        return found


class Torch:
    """The same training in torch: it takes over the weights, the settings and the schedule."""

    def __init__(self, training: Any, layout: str) -> None:
        import torch

        from benchmarks.torch_faster_rcnn import TorchSmallFasterRCNN, nms

        nms(torch.zeros(1, 4), 0.5)  # compiles
        self.torch, self.memory, self.training, self.steps = torch, getattr(torch, layout), training, 0
        torch.manual_seed(SEED)
        (anchors,), settings = training.model.rpn.base_anchors, training.settings
        classes = training.model.roi_heads.num_classes
        rpn_stride = training.model.rpn.head.stride
        self.model = TorchSmallFasterRCNN(anchors, classes, settings["hidden"], settings["stride"], rpn_stride)
        state = {name: torch.from_numpy(np.array(array)) for name, array in training.model.state_dict().items()}
        self.model.load_state_dict(state, strict=False)  # torch's batch norm counts batches, too
        self.model.to(memory_format=self.memory).train()
        decay = settings["weight_decay"]
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 0.0, weight_decay=decay, fused=True)

    def images(self, images: list[np.ndarray]) -> Any:
        return self.torch.from_numpy(np.stack(images)).contiguous(memory_format=self.memory)

    def step(self, batch: Any) -> dict[str, float]:
        torch, training = self.torch, self.training
        for group in self.optimizer.param_groups:
            group["lr"] = training.settings["learning_rate"] * training.schedule(self.steps, training.total_steps)
        self.steps += 1
        targets = [{key: torch.from_numpy(target[key]) for key in ("boxes", "labels")} for target in batch.targets]
        losses = self.model(self.images(batch.images), targets)
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), training.settings["clip_norm"])
        self.optimizer.step()
        return {name: loss.item() for name, loss in losses.items()}

    def predict(self, dataset: Any) -> list[dict]:
        self.model.eval()
        with self.torch.no_grad():
            samples = [dataset[i].image for i in range(len(dataset))]
            images = [np.multiply(image, np.float32(1 / 255)).transpose(2, 0, 1) for image in samples]
            found = [one for i in range(0, len(images), 8) for one in self.model(self.images(images[i : i + 8]))]
        self.model.train()
        return found


TRAINEES = {
    "minidet": Minidet,
    "torch channels_last": lambda training: Torch(training, "channels_last"),
    "torch contiguous": lambda training: Torch(training, "contiguous_format"),
}


# The suite


def step_of(engine: str) -> dict[str, Callable]:
    """One step on batches of generated images, one after the other."""
    from minidet.data import CLASSES, Sample, make_scene
    from minidet.training import load_system
    from minidet.training.state import Training

    system = load_system("faster_rcnn")
    settings = system.configure([])
    scenes = [
        make_scene(np.random.default_rng(number), settings["size"], crowd=0)
        for number in range(BATCHES * settings["batch_size"])
    ]
    samples = [Sample(scene.image, scene.boxes, scene.labels) for scene in scenes]
    training = Training(system, settings, ("__background__", *CLASSES), samples, SEED)
    training.begin_epoch()
    trainee, batches = TRAINEES[engine](training), list(training.loader)
    turn = iter(range(10**9))
    return dict.fromkeys(ROWS, lambda: trainee.step(batches[next(turn) % BATCHES]) and None)


ROWS = {
    # each engine draws its own samples
    "small Faster R-CNN, training step, 8 x 128 x 128": Row("torch channels_last", 1, agree=False, quick=True),
}
ENGINES = {engine: lambda engine=engine: step_of(engine) for engine in TRAINEES}


# The race


def race(out: Path, overrides: list[str], steps: int | None) -> None:
    """Both engines, one after the other."""
    for engine in ("minidet", "torch channels_last"):
        command = [sys.executable, "-m", "benchmarks.faster_rcnn", "race", "--engine", engine, "--out", str(out)]
        command += [f"--set={override}" for override in overrides]
        command += [] if steps is None else ["--steps", str(steps)]
        rows = []
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                if line.startswith("{"):
                    rows.append(json.loads(line))
                    ap = f", AP {rows[-1]['map']:.3f}" if steps is None else ""
                    print(f"  {engine}: step {rows[-1]['step']}, {rows[-1]['seconds']:.0f} s{ap}", flush=True)
        if process.returncode:
            raise SystemExit(f"{engine}: its process ended with {process.returncode}")
        reached = next((row for row in rows if row.get("map", 0) >= GOAL), None)
        goal = f"AP {GOAL:.2f} after {reached['seconds'] / 60:.2f} minutes" if reached else f"AP {GOAL:.2f} not reached"
        last = rows[-1]
        print(f"{engine}: {last['steps_per_second']:.1f} steps a second, {last['peak_mb']:.0f} MB at most", end="")
        print("" if steps is not None else f", {goal}, AP {last['map']:.3f} at the end", flush=True)


def run_engine(engine: str, out: Path, overrides: list[str], steps: int | None) -> None:
    """In the engine's own process: a line of JSON each CHECK steps."""
    from minidet.cli.common import make_training_data, open_splits
    from minidet.training import load_system, try_settings
    from minidet.training.recipes.detection import metrics_of
    from minidet.training.state import Training

    system = load_system("faster_rcnn")
    settings = system.configure(overrides)
    if engine == "minidet":
        try_settings(system, settings)  # compiles, as a run does before it begins
    splits = open_splits(make_training_data(out / "data", system, settings), system, settings)
    training = Training(system, settings, splits["train"].classes, splits["train"], SEED)
    training.begin_epoch()
    trainee = TRAINEES[engine](training)
    done, seconds, total = 0, 0.0, steps or training.total_steps
    for taken in clocked(training, trainee, total):
        done, seconds = done + 1, seconds + taken
        if done % CHECK == 0 or done == total:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            row = {"step": done, "seconds": seconds, "steps_per_second": done / seconds, "peak_mb": peak}
            if steps is None:
                row |= metrics_of(trainee.predict(splits["val"]), splits["val"])
            print(json.dumps(row), flush=True)


def clocked(training: Any, trainee: Any, total: int) -> Iterator[float]:
    """The seconds of each step, with the wait for its batch, for epoch after epoch."""
    done = 0
    while True:
        batches = iter(training.loader)
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                break
            trainee.step(batch)
            done += 1
            yield time.perf_counter() - start
            if done == total:
                return


# What is found


def measure(model: Any, dataset: Any) -> dict[str, float]:
    """COCO's metrics of a data set, and how many of its objects the first 300 proposals find at IoU 0.5."""
    from minidet import watch
    from minidet.evaluation.proposals import proposal_recall
    from minidet.training.recipes.detection import evaluate

    proposals: list[np.ndarray] = []

    def hear(event: watch.Event) -> None:
        if event.name == "rpn.proposals":
            proposals.extend(event.value)

    with watch.listen(hear):
        metrics, _ = evaluate(model, dataset)
    truth = [record.boxes[~record.iscrowd] for record in dataset.records]
    return metrics | {"recall_300": float(proposal_recall(proposals, truth, (0.5,), (300,))[0, 0])}


def detections(out: Path, overrides: list[str], seeds: int) -> None:
    """Trains both ways, once a seed, as `minidet train` does, and measures the best weights on the test images."""
    from minidet.cli.common import load_trained, make_training_data
    from minidet.cli.train import start_run
    from minidet.training import load_system, train

    means = {}
    for name in ("faster_rcnn", "faster_rcnn_four_steps"):
        system, results = load_system(name), []
        data = make_training_data(out / "data", system, system.configure(overrides))
        for seed in range(seeds):
            run, splits = start_run(system, out / f"{name}-{seed}", data, seed, overrides)
            metrics = train(system, run, *splits.values())
            _, _, model = load_trained(run.folder, "best")
            results.append(metrics | measure(model, splits["test"]))
            print(f"{name}, seed {seed}: {told(results[-1])}", flush=True)
        means[name] = {column: fmean(result[column] for result in results) for column in COLUMNS}
        print(f"{name}, mean:   {told(means[name])}", flush=True)
    joint, four = (mean["map"] for mean in means.values())
    print(f"four steps against joint: {four - joint:+.3f} AP")


def told(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {values[name]:.4g}" for name in COLUMNS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("race", "detections"), default="detections")
    parser.add_argument("--out", type=Path, default=Path("faster-rcnn-benchmark"), help="folder for data and runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="race: so many steps, and no detections")
    parser.add_argument("--engine", choices=TRAINEES, help="race: only this one, in this process")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    arguments = parser.parse_args()
    if arguments.what == "detections":
        detections(arguments.out, arguments.set, arguments.seeds)
    elif arguments.engine:
        run_engine(arguments.engine, arguments.out, arguments.set, arguments.steps)
    else:
        race(arguments.out, arguments.set, arguments.steps)


if __name__ == "__main__":
    main()
