"""Data: the generated set miniscene, readers and writers of annotation files, augmentation, batches.

make_dataset("scenes", images=1000)             # writes image files and annotations
dataset = open_dataset("scenes", split="train")
for batch in Loader(dataset, batch_size=32, transform=transforms.Compose([...])): ...
"""

from minidet.data.dataset import Dataset, Sample, find_split, find_splits, open_dataset
from minidet.data.files import AnnotationError
from minidet.data.images import ImageError, read_image, write_image
from minidet.data.loader import Batch, Loader, collate, collate_list
from minidet.data.make import make_dataset
from minidet.data.miniscene import CLASSES, Scene, make_scene

__all__ = [
    "CLASSES", "AnnotationError", "Batch", "Dataset", "ImageError", "Loader", "Sample", "Scene", "collate",
    "collate_list", "find_split", "find_splits", "make_dataset", "make_scene", "open_dataset", "read_image",
    "write_image",
]  # fmt: skip
