"""Random images for COCO's metrics, hard in every way, and what pycocotools says of them.

python -m tests.evaluation.coco_cases 1000      so many cases of boxes, of masks and of keypoints, compared to 1e-12
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
from typing import Any

import numpy as np
import pytest

from minidet.evaluation import coco_curves, evaluate_coco
from minidet.evaluation.overlaps import OTHER_SIGMA

CLASSES = 3
JOINTS = (17, 5)
TYPES = {"boxes": "bbox", "masks": "segm", "keypoints": "keypoints"}


def random_side(rng: np.random.Generator, kind: str, joints: int, is_truth: bool, crowded: bool) -> dict:
    """One image's objects or detections: boxes on a coarse grid, so that many overlaps are equal, or anywhere."""
    count = int(rng.choice([0, 1, 3, 8]))
    if crowded and not is_truth:
        count = 130
    if rng.random() < 0.5:
        corners = np.sort(rng.integers(0, 6, (count, 2, 2)), axis=1) * 32.0
    else:
        corners = np.sort(rng.random((count, 2, 2)).astype(np.float32), axis=1) * 160
    boxes = corners.reshape(count, 4).astype(np.float32)
    result = {"boxes": boxes, "labels": rng.integers(1, 1 + rng.integers(1, CLASSES + 1), count)}
    if kind == "masks":
        height, width = 20, 24
        result["masks"] = np.zeros((count, height, width), bool)
        for mask, (x1, y1, x2, y2) in zip(result["masks"], (boxes / 8).astype(int), strict=True):
            mask[y1:y2, x1:x2] = rng.random((y2 - y1, x2 - x1)) < rng.choice([0.6, 1])
    if kind == "keypoints":
        places = (
            boxes[:, None, :2] + rng.integers(0, 9, (count, joints, 2)) * (boxes[:, None, 2:] - boxes[:, None, :2]) / 8
        )
        visible = rng.integers(0, 3, (count, joints, 1)) * (rng.random((count, 1, 1)) < 0.8)
        result["keypoints"] = np.concatenate([places, visible], axis=2)
    if not is_truth:
        return result | {"scores": (rng.integers(0, 5, count) / 4 if rng.random() < 0.5 else rng.random(count))}
    result["iscrowd"] = rng.random(count) < 0.2
    result["areas"] = rng.choice([100.0, 32**2, 5000, 96**2, 1e4, 0], count)
    return result


def random_case(seed: int, kind: str) -> tuple[list[dict], list[dict]]:
    rng = np.random.default_rng(seed)
    joints = JOINTS[rng.integers(2)]
    images, crowded = int(rng.integers(1, 6)), rng.random() < 0.1
    predictions, targets = [], []
    for _ in range(images):
        truth = random_side(rng, kind, joints, True, crowded)
        found = random_side(rng, kind, joints, False, crowded)
        if rng.random() < 0.5 and len(truth["labels"]) and len(found["labels"]):  # detections on objects
            taken = rng.integers(0, len(truth["labels"]), len(found["labels"]))
            near = rng.random(len(taken)) < 0.7
            for key in set(truth) & set(found):
                found[key][near] = truth[key][taken][near]
            if kind == "keypoints":
                found["keypoints"][..., :2] += rng.integers(-4, 5, found["keypoints"][..., :2].shape)
        predictions.append(found)
        targets.append(truth)
    return predictions, targets


def with_pycocotools(predictions: list[dict], targets: list[dict], kind: str, seed: int) -> Any:
    """pycocotools' evaluation; ids of annotations, images and categories with gaps and in any order."""
    module = pytest.importorskip("pycocotools.cocoeval", reason="pycocotools is the oracle; pip install '.[test]'")
    from pycocotools import mask as rle
    from pycocotools.coco import COCO

    rng = np.random.default_rng(seed)
    image_ids = np.sort(rng.choice(100, len(targets), replace=False))
    category_ids = np.sort(rng.choice(90, CLASSES, replace=False))
    annotation_ids = iter(1 + rng.permutation(sum(len(target["labels"]) for target in targets)))
    annotations, results = [], []
    for image_id, found, truth in zip(image_ids, predictions, targets, strict=True):
        for side, entries in ((truth, annotations), (found, results)):
            for row, label in enumerate(side["labels"]):
                entry = {"image_id": int(image_id), "category_id": int(category_ids[label - 1])}
                if kind == "boxes" or side is truth:
                    x1, y1, x2, y2 = side["boxes"][row].astype(float).tolist()
                    entry["bbox"] = [x1, y1, x2 - x1, y2 - y1]
                if kind == "masks":
                    entry["segmentation"] = rle.encode(np.asfortranarray(side["masks"][row].astype(np.uint8)))
                if kind == "keypoints":
                    entry["keypoints"] = side["keypoints"][row].ravel().tolist()
                if side is truth:
                    entry |= {"id": int(next(annotation_ids)), "area": float(side["areas"][row])}
                    entry |= {"iscrowd": int(side["iscrowd"][row])}
                    if kind == "keypoints":
                        entry["num_keypoints"] = int((side["keypoints"][row, :, 2] > 0).sum())
                else:
                    entry["score"] = float(side["scores"][row])
                entries.append(entry)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": int(i), "height": 20, "width": 24} for i in rng.permutation(image_ids)],
            "categories": [{"id": int(i)} for i in rng.permutation(category_ids)],
            "annotations": annotations,
        }
        coco.createIndex()
        if results:
            found_coco = coco.loadRes(results)
        else:
            found_coco = COCO()
            found_coco.dataset = coco.dataset | {"annotations": []}
            found_coco.createIndex()
        evaluation = module.COCOeval(coco, found_coco, TYPES[kind])
        joints = next((t["keypoints"].shape[1] for t in targets if kind == "keypoints"), 17)
        if kind == "keypoints" and joints != 17:
            evaluation.params.kpt_oks_sigmas = np.full(joints, OTHER_SIGMA)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def compare(seed: int, kind: str) -> None:
    """All curves and metrics of one case; AssertionError where one is not pycocotools'."""
    predictions, targets = random_case(seed, kind)
    expected = with_pycocotools(predictions, targets, kind, seed)
    curves = coco_curves(predictions, targets, CLASSES, kind)
    for name in ("precision", "recall", "scores"):
        np.testing.assert_allclose(getattr(curves, name), expected.eval[name], rtol=0, atol=1e-12, err_msg=name)
    metrics = list(evaluate_coco(predictions, targets, CLASSES, kind).values())
    stats = expected.stats if kind != "keypoints" else expected.stats[[0, 1, 2, 3, 4, 5, 8, 9]]
    np.testing.assert_allclose(metrics, stats, rtol=0, atol=1e-12)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares COCO's metrics with pycocotools'.")
    parser.add_argument("cases", type=int, help="how many of each kind")
    cases = parser.parse_args().cases
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")  # so few boxes are no work to share
    for kind in TYPES:
        for seed in range(cases):
            compare(seed, kind)
        print(
            f"{kind}: {cases} cases, every precision, recall, score and mean within 1e-12 of pycocotools'", flush=True
        )


if __name__ == "__main__":
    main()
