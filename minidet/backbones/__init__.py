"""Networks that turn an image into a feature map, to put heads on."""

from .tiny import TinyBackbone

__all__ = ["TinyBackbone"]
