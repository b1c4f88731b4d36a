"""RoIPool and RoIAlign as formulas in torch, whose autograd gives the gradients; and geometry broken on purpose."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest


def roi_pool(torch: Any, x: Any, rois: Any, output_size: tuple[int, int], spatial_scale: float) -> tuple[Any, Any]:
    """Bin by bin: the maximum of a slice, and where it is."""
    height, width = x.shape[2:]
    corners = (rois[:, 1:] * spatial_scale).double()  # in which adding a half is exact for float32
    corners = (torch.sign(corners) * torch.floor(corners.abs() + 0.5)).to(rois.dtype)
    values = torch.zeros(len(rois), x.shape[1], *output_size, dtype=x.dtype)
    argmax = torch.full(values.shape, -1, dtype=torch.int32)
    for r, (image, (x1, y1, x2, y2)) in enumerate(zip(rois[:, 0].long(), corners, strict=True)):
        rows, columns = _bins(torch, y1, y2, output_size[0], height), _bins(torch, x1, x2, output_size[1], width)
        for i, (top, bottom) in enumerate(rows):
            for j, (left, right) in enumerate(columns):
                if top < bottom and left < right:
                    pixels = x[image, :, top:bottom, left:right].flatten(1)
                    values[r, :, i, j], at = pixels.max(dim=1)
                    row, column = top + at // (right - left), left + at % (right - left)
                    argmax[r, :, i, j] = (row * width + column).int()
    return values, argmax


def _bins(torch: Any, low: Any, high: Any, bins: int, map_size: int) -> list[tuple[int, int]]:
    size = (high - low + 1) / bins
    edges = [(torch.floor(i * size) + low, torch.ceil((i + 1) * size) + low) for i in range(bins)]
    return [(int(start.clamp(0, map_size)), int(stop.clamp(0, map_size))) for start, stop in edges]


def roi_align(
    torch: Any, x: Any, rois: Any, output_size: Any, spatial_scale: float, sampling_ratio: int, aligned: bool
) -> Any:
    """y = A x B': the rows of A and B hold the weights of a bin's rows and columns, the mean of hat functions."""
    if len(rois) == 0:
        return x.sum() * torch.zeros(0, x.shape[1], *output_size, dtype=x.dtype)
    boxes = rois[:, 1:] * spatial_scale - (0.5 if aligned else 0.0)
    result = []
    for image, (x1, y1, x2, y2) in zip(rois[:, 0].long(), boxes, strict=True):
        a = _weights(torch, y1, y2, output_size[0], x.shape[2], sampling_ratio, aligned)
        b = _weights(torch, x1, x2, output_size[1], x.shape[3], sampling_ratio, aligned)
        result.append(a @ x[image] @ b.T)
    return torch.stack(result)


def _weights(torch: Any, low: Any, high: Any, bins: int, map_size: int, sampling_ratio: int, aligned: bool) -> Any:
    """(bins, map_size). A pixel's hat is 1 on it, 0 on its neighbours; the places before the first pixel and behind the
    last one are moved onto them."""
    size = high - low if aligned else (high - low).clamp(min=1)
    samples = sampling_ratio if sampling_ratio > 0 else int(torch.ceil(size / bins))
    places = low + size * (torch.arange(bins * samples, dtype=low.dtype) + 0.5) / max(bins * samples, 1)
    hats = (1 - (places.clamp(0, map_size - 1)[:, None] - torch.arange(map_size)).abs()).clamp(min=0)
    hats = hats * ((places >= -1) & (places <= map_size))[:, None]
    return hats.reshape(bins, samples, map_size).sum(1) / max(samples, 1)


def break_geometry(monkeypatch: pytest.MonkeyPatch, folder: str, function: str, old: str, new: str) -> None:
    """Both versions take their places from geometry.py, so there is no second one to compare it with: its mutants go
    into the reference, and have to be caught by the tests of numbers."""
    geometry = importlib.import_module(f"minidet_kernels.{folder}.geometry")
    text = Path(geometry.__file__).read_text()
    assert old in text, "the mutant no longer fits geometry.py; write it anew"
    mutant = {"__name__": f"mutant of {folder}"}
    exec(compile(text.replace(old, new), "mutant", "exec"), mutant)
    monkeypatch.setattr(importlib.import_module(f"minidet_kernels.{folder}.reference"), function, mutant[function])
