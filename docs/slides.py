"""The pictures beside the README's slides, cut out of what the examples draw.

    for name in localization pose ...; do python examples/$name.py --out FOLDER/$name; done
    minidet compare --out FOLDER/compare
    minidet data make FOLDER/data --task detection --images 40 && minidet data check FOLDER/data --out FOLDER/data_check
    python docs/slides.py FOLDER

A picture whose example's is not in FOLDER stays as it is.
"""

import argparse
from pathlib import Path

from PIL import Image

WIDTH = 240  # pixels: with three more columns the table still fits on a page
QUALITY = 85  # of the JPEGs, 10 kB each; at 75 the frames of boxes are dirty

# Of each picture the example's, and which part of it: left, top, right, bottom in its pixels.
PICTURES = {
    "localization": ("localization/1-boxes.png", (664, 8, 984, 328)),
    "alpha": ("localization/2-alpha.png", (0, 0, 720, 480)),
    "pose": ("pose/1-skeletons.png", (400, 8, 784, 392)),
    "pose-stages": ("pose/1-stages.png", (0, 0, 720, 480)),
    "openpose": ("people/2-openpose.png", (792, 8, 1176, 392)),
    "weak": ("weak_localization/2-boxes.png", (792, 34, 1176, 226)),
    "gap": ("weak_localization/2-boxes.png", (1968, 34, 2352, 226)),
    "pooling": ("weak_localization/2-boxes.png", (792, 254, 1176, 446)),
    "thresholds": ("weak_localization/1-thresholds.png", (0, 0, 780, 480)),
    "cam": ("heatmaps/1-methods.png", (208, 474, 400, 666)),
    "grad-cam": ("heatmaps/1-methods.png", (408, 474, 600, 666)),
    "desiderata": ("heatmaps/1-methods.png", (2008, 474, 2400, 666)),
    "augmented-grad-cam": ("augmented_gradcam/1-maps.png", (936, 1268, 1160, 1492)),
    "total-variation": ("total_variation/total-variation.png", (411, 360, 710, 660)),
    "data": ("data_check/train.png", (400, 446, 784, 830)),
    "sliding-window": ("sliding_window/2-pyramid.png", (8, 34, 582, 608)),
    "selective-search": ("selective_search/hierarchy.png", (536, 592, 792, 848)),
    "rcnn": ("rcnn/1-regions.png", (8, 408, 600, 1000)),
    "rcnn-limitations": ("rcnn/2-detections.png", (792, 8, 1176, 392)),
    "fast-rcnn": ("fast_rcnn/1-regions.png", (400, 8, 784, 392)),
    "anchors": ("faster_rcnn/1-anchors.png", (8, 8, 776, 776)),
    "recall": ("faster_rcnn/3-recall.png", (0, 0, 574, 420)),
    "proposals": ("faster_rcnn/2-proposals.png", (1576, 8, 1960, 392)),
    "yolo-grid": ("yolo/1-grid.png", (8, 420, 392, 804)),
    "yolo-anchors": ("yolo/2-anchors.png", (1000, 8, 1310, 316)),
    "ssd": ("ssd/1-default-boxes.png", (1184, 8, 1568, 392)),
    "speed-accuracy": ("compare/speed-accuracy.png", (0, 0, 750, 500)),
    "masks": ("mask_rcnn/1-detections.png", (1576, 8, 1960, 392)),
    "mask-rcnn": ("mask_rcnn/2-maps.png", (536, 204, 1056, 392)),
    "keypoint-rcnn": ("people/1-keypoint-rcnn.png", (792, 400, 1176, 784)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the examples' folders are")
    folder = parser.parse_args().folder
    for name, (source, part) in PICTURES.items():
        if not (folder / source).is_file():
            print(f"{name}: no {folder / source}, left as it was")
            continue
        cut = Image.open(folder / source).convert("RGB").crop(part)
        small = cut.resize((WIDTH, round(cut.height * WIDTH / cut.width)), Image.Resampling.LANCZOS)
        small.save(Path(__file__).with_name("slides") / f"{name}.jpg", quality=QUALITY)


if __name__ == "__main__":
    main()
