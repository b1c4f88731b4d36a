"""A system small enough to train in a blink, with everything that a checkpoint must hold: dropout, batch norm, Adam.

As a script, `toy_system.py FOLDER [--resume]` trains it with a checkpoint after every step; the kill tests do that.
"""

import sys
from pathlib import Path

import numpy as np

from minidet import Tensor, nn
from minidet import functional as F
from minidet.data.dataset import Sample
from minidet.data.transforms import RandomFlip
from minidet.training import System, create_run, open_run, train

CLASSES = ("__background__", "dark", "bright")
SIZE = 4


class ToyModel(nn.Module):
    """Linear layers on the pixels. factor multiplies the loss: a test breaks the training with it."""

    factor = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.hidden = nn.Linear(3 * SIZE * SIZE, 8)
        self.dropout = nn.Dropout(0.5)
        self.scores = nn.Linear(8, 2)
        self.box = nn.Linear(8, 4)

    def forward(self, images, targets=None):
        features = self.dropout(F.relu(self.hidden(self.norm(images).flatten(1))))
        logits, boxes = self.scores(features), self.box(features)
        if targets is None:
            return [{"labels": row.argmax(keepdims=True) + 1, "boxes": box[None]} for row, box in
                    zip(logits.data, boxes.data, strict=True)]  # fmt: skip
        labels = np.concatenate([target["labels"] for target in targets]) - 1
        truth = np.concatenate([target["boxes"] for target in targets])
        return {
            "class": F.cross_entropy(logits, labels) * self.factor,
            "box": F.smooth_l1_loss(boxes, truth),
        }


class ToyDataset:
    """Random pixels; bright images have label 2. The box is the same everywhere."""

    classes = CLASSES

    def __init__(self, count: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.samples = []
        for index in range(count):
            label = int(rng.integers(1, 3))
            image = rng.integers(0, 128, (SIZE, SIZE, 3)) + 127 * (label - 1)
            box = np.array([[1.0, 1.0, 3.0, 3.0]])
            self.samples.append(Sample(image.astype(np.uint8), box, np.array([label]), name=f"toy-{index}.png"))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:  # raises IndexError at the end, so that `for` loops stop
        return self.samples[index]

    def subset(self, indices):
        return [self.samples[index] for index in indices]


def evaluate(model, dataset, batch_size):
    images = np.stack([sample.image for sample in dataset]).transpose(0, 3, 1, 2).astype(np.float32) / 255
    predictions = model(Tensor(images))
    right = [p["labels"][0] == s.labels[0] for p, s in zip(predictions, dataset, strict=True)]
    return {"accuracy": np.mean(right)}, predictions


def predict(model, samples, batch_size):
    return evaluate(model.eval(), samples, batch_size)[1]


def draw(samples, predictions, classes):
    return np.concatenate([sample.image for sample in samples], axis=1)


SYSTEM = System(
    name="toy",
    build=lambda classes, config, rng: ToyModel(),
    transform=lambda config: RandomFlip(),
    evaluate=evaluate,
    draw=draw,
    check=lambda dataset, config: None,
    predict=predict,
    metric="accuracy",
    defaults={"epochs": 3, "batch_size": 4, "warmup": 2, "log_every": 2, "learning_rate": 0.01},
)


def toy_run(folder, overrides=(), **more):
    config = {"system": "toy", "data": "data", "seed": 5, "classes": list(CLASSES)}
    return create_run(folder, config | {"settings": SYSTEM.configure(overrides)} | more)


def train_toy(run, resume=False, **options):
    options = {"quiet": True, "checkpoint_seconds": 0.0} | options
    return train(SYSTEM, run, ToyDataset(22, seed=1), ToyDataset(9, seed=2), resume=resume, **options)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    started = (folder / "config.json").is_file()
    print("ready", flush=True)
    train_toy(open_run(folder) if started else toy_run(folder), resume=started)
