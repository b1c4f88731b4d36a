"""Several people's joints: the lecture's Keypoint R-CNN and OpenPose, trained and measured.

1. Keypoint R-CNN: people's boxes first, then in each box a map for each joint.
2. OpenPose: all joints at once, and fields that say which belong together; what a second stage makes better.
3. What more people cost: each one's map is drawn anew, or all are in the same maps.

    python examples/people.py --out people-example
    python examples/people.py --quick          # a minute, to see it run; too short for good numbers

The pictures and the table of numbers are in --out. All numbers are of images that were not trained on.
"""

import json
from typing import Any

import numpy as np

from common.arguments import parse_arguments
from common.training import QUICK, as_tensor, make_and_open, train_and_tell
from minidet import no_grad, watch
from minidet.drawing import draw_field, grid, overlay, save_png
from minidet.evaluation import mean_stage_seconds
from minidet.training.recipes import detection, keypoint_rcnn, openpose, people

JOINTS_SHOWN = ("right wrist", "left wrist", "neck")
TIMED = 20  # images with each number of people


def main() -> None:
    arguments = parse_arguments(__doc__, "people-example")
    out, quick, seed = arguments.out, arguments.quick, arguments.seed
    out.mkdir(parents=True, exist_ok=True)
    settings = QUICK if quick else {}
    train, test = make_and_open(openpose.SYSTEM, out / "data", quick, seed)
    samples = [test[i] for i in range(min(12, len(test)))]

    print("\n1. Boxes first")
    boxes_first, results = train_and_tell("Keypoint R-CNN", keypoint_rcnn.SYSTEM, train, test, settings, seed)
    save_png(out / "1-keypoint-rcnn.png", people.draw(samples, detection.predict(boxes_first, samples), test.classes))

    print("\n2. Joints first")
    model, more = train_and_tell("OpenPose", openpose.SYSTEM, train, test, settings, seed)
    results |= more
    save_png(out / "2-openpose.png", people.draw(samples, detection.predict(model, samples), test.classes))
    save_png(out / "3-maps.png", draw_maps(model, samples[0], people.joints_of(openpose.DEFAULTS)[0]))
    for stage in range(len(model.stages)):
        model.read_stage = stage
        metrics, _ = openpose.SYSTEM.evaluate(model, test)
        results[f"stage {stage + 1}"] = metrics
        print(f"  read from stage {stage + 1}: joints' AP {metrics['keypoint_map']:.3f}")

    print("\n3. More people")
    results["milliseconds"] = compare_times({"Keypoint R-CNN": boxes_first, "OpenPose": model}, test)

    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"\nThe pictures are in {out}: 1-keypoint-rcnn.png to 3-maps.png; the numbers in results.json")


def draw_maps(model: Any, sample: Any, names: tuple[str, ...]) -> np.ndarray:
    """Of one image each stage's maps of some joints, and the field of the limb that ends in the first of them."""
    said: list[Any] = []
    image = as_tensor(sample)
    with no_grad(), watch.listen(lambda event: said.append(event.value.data[0]) if "openpose" in event.name else None):
        model.eval()([image])
    joints = [names.index(name) for name in JOINTS_SHOWN]
    limb = next(number for number, ends in enumerate(model.tree) if joints[0] in ends)
    pictures, captions = [], []
    for stage in range(len(model.stages)):
        confidence, fields = said[2 * stage], said[2 * stage + 1]
        pictures += [overlay(sample.image, confidence[joint].clip(0, 1), (0.0, 1.0)) for joint in joints]
        captions += [f"stage {stage + 1}: {name}" for name in JOINTS_SHOWN]
        pictures.append(draw_field(sample.image, fields[2 * limb : 2 * limb + 2]))
        captions.append(f"stage {stage + 1}: {' to '.join(names[joint] for joint in model.tree[limb])}")
    return grid(pictures, columns=len(joints) + 1, captions=captions, least_side=360)


def compare_times(models: dict[str, Any], dataset: Any) -> dict[str, dict[int, float]]:
    """Milliseconds an image, one at a time, by the number of people in it."""
    counts = sorted({len(record.boxes) for record in dataset.records})
    found: dict[str, dict[int, float]] = {name: {} for name in models}
    for count in counts:
        these = [i for i, record in enumerate(dataset.records) if len(record.boxes) == count][:TIMED]
        images = [as_tensor(dataset[i]) for i in these]
        for name, model in models.items():
            found[name][count] = 1e3 * sum(mean_stage_seconds(model, images).values())
    print("  people                  " + "".join(f"{count:8d}" for count in counts))
    for name, milliseconds in found.items():
        print(f"  {name:24s}" + "".join(f"{value:6.1f}ms" for value in milliseconds.values()))
    return found


if __name__ == "__main__":
    main()
