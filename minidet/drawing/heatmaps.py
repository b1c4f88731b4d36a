"""Heat maps on their images, with a bar that says what the colours mean.

The image is shown in grey and the map in colour, so that every hue in the picture is the map's. The colours are
those of viridis, in which equal steps of the value look like equal steps, to colour-blind readers and in print too.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from minidet.drawing.boxes import draw_boxes
from minidet.drawing.canvas import enlarge, enlargement, font, text_size
from minidet.drawing.grid import GAP, INK, PAPER, TEXT_SIZE, grid
from minidet.heatmaps import resize_map

COLORS = "viridis"
LEAST_OPACITY, MOST_OPACITY = 0.35, 0.75  # of the colour over the grey image, where the map is smallest and largest
BAR_WIDTH = 16
LEGEND_WIDTH = 100

# Of the gradients of pixels a few are many times as large as all others, and on a scale that ends with them nothing
# else would be seen. Their colours end at the 99th percentile, as in Smilkov et al. 2017 (SmoothGrad, section 3.1).
# Maps of layers have fewer than MANY values; their colours end at the largest.
MANY, PERCENTILE = 1024, 99


def overlay(
    image: np.ndarray,
    heat: np.ndarray,
    limits: tuple[float, float] | None = None,
    boxes: np.ndarray | None = None,
    factor: float | None = None,
) -> np.ndarray:
    """A heat map over its image.

    image: (H, W, 3) uint8, or float in [0, 1]. heat: (h, w), finite, of the same field of view; enlarged smoothly.
    limits: the values of the first and last colour; by default those of `value_range`. boxes: (R, 4)
    x1 y1 x2 y2 in pixels of the image, drawn dashed. factor: enlargement, as in `draw_boxes`.
    Returns (factor * H, factor * W, 3) uint8.
    """
    heat = _checked(heat)
    factor = factor or enlargement(*image.shape[:2])
    picture = np.asarray(enlarge(image, factor).convert("L"), np.float32)[..., None]
    values = _scaled(resize_map(heat[None], picture.shape[:2])[0], limits or value_range(heat))
    opacity = LEAST_OPACITY + (MOST_OPACITY - LEAST_OPACITY) * values[..., None]
    mixed = (picture + opacity * (_colors(values) - picture) + 0.5).astype(np.uint8)
    if boxes is None:
        return mixed
    return draw_boxes(mixed, np.zeros((0, 4)), truth=np.asarray(boxes, float) * factor, factor=1)


def draw_heatmap(
    image: np.ndarray, heat: np.ndarray, lines: Sequence[str] = (), boxes: np.ndarray | None = None
) -> np.ndarray:
    """An overlay with a bar of its values beside it and lines of text above: class and score, method and layer.

    image, heat, boxes: as `overlay`. Returns (height, width, 3) uint8, white around.
    """
    heat = _checked(heat)
    limits = value_range(heat)
    picture = overlay(image, heat, limits, boxes)
    height, width = picture.shape[:2]
    line = text_size("Ag", TEXT_SIZE)[1] + 4
    bar_height = max(height, 2 * line)  # of a flat picture: two labels must fit beside it
    count = min(bar_height // line, 5) if limits[1] > limits[0] else 1
    labels = [number(value) for value in np.linspace(*limits, count)]
    labels[-1] = ("> " if heat.max() > limits[1] else "") + labels[-1]
    room = BAR_WIDTH + 8 + max(text_size(label, TEXT_SIZE)[0] for label in labels)
    sheet_width = max(width + 2 * GAP + room, *(text_size(text, TEXT_SIZE)[0] for text in lines or ("",))) + 2 * GAP
    top = GAP + line * len(lines) + (4 if lines else 0)
    sheet = Image.new("RGB", (sheet_width, top + bar_height + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, text in enumerate(lines):
        draw.text((GAP, GAP - 2 + index * line), text, fill=INK, font=font(TEXT_SIZE))
    sheet.paste(Image.fromarray(picture), (GAP, top))
    x = GAP + width + GAP
    sheet.paste(_bar(bar_height), (x, top))
    for index, label in enumerate(labels):
        y = top + (bar_height - 1) * (1 - index / max(count - 1, 1))
        draw.line([(x + BAR_WIDTH, y), (x + BAR_WIDTH + 3, y)], fill=INK)
        place = min(max(y - line / 2, top - 2), top + bar_height - line + 2)
        draw.text((x + BAR_WIDTH + 7, place), label, fill=INK, font=font(TEXT_SIZE))
    return np.array(sheet)


def compare_heatmaps(
    images: Sequence[np.ndarray],
    maps: Mapping[str, Sequence[np.ndarray]],
    names: Sequence[str] | None = None,
    columns: int | None = None,
    boxes: Sequence[np.ndarray] | None = None,
    title: str = "",
) -> np.ndarray:
    """A sheet with each image and, beside it, what every method makes of it.

    images: N of (H, W, 3). maps: by the method's name N maps (h, w), each in its own colours; the values of the first
    and last colour (`value_range`) are written under it. names: written under each image. columns: of the sheet; by
    default one row an image. boxes: (R, 4) of each image. Returns (height, width, 3) uint8.
    """
    pictures, captions = [], []
    for n, image in enumerate(images):
        factor = enlargement(*image.shape[:2], least_side=160)
        pictures.append(np.asarray(enlarge(image, factor)))
        captions.append(names[n] if names is not None else "image")
        for method, heats in maps.items():
            pictures.append(overlay(image, heats[n], boxes=None if boxes is None else boxes[n], factor=factor))
            captions.append(f"{method}  {_range_text(heats[n])}")
    return _with_legend(grid(pictures, columns or 1 + len(maps), captions, title))


def _with_legend(sheet: np.ndarray) -> np.ndarray:
    """The sheet with a bar of the colours under it."""
    line = text_size("Ag", TEXT_SIZE)[1] + 4
    strip = Image.new("RGB", (sheet.shape[1], line + GAP), PAPER)
    draw = ImageDraw.Draw(strip)
    strip.paste(_bar(LEGEND_WIDTH).rotate(-90, expand=True), (GAP, 1))
    text = "from the first to the second value under each map"
    draw.text((GAP + LEGEND_WIDTH + GAP, 0), text, fill=INK, font=font(TEXT_SIZE))
    return np.concatenate([sheet, np.array(strip)])


def _range_text(heat: np.ndarray) -> str:
    low, high = value_range(np.asarray(heat))
    return f"{number(low)} to {number(high)}" if high > low else "0 everywhere"


def value_range(heat: np.ndarray) -> tuple[float, float]:
    """The values of the first and the last colour: 0 or the least, if that is less; and the largest, or of maps with
    MANY values the 99th percentile, if that is not 0."""
    low, high = min(float(heat.min()), 0.0), max(float(heat.max()), 0.0)
    percentile = float(np.percentile(heat, PERCENTILE)) if heat.size >= MANY else high
    return low, percentile if percentile > 0 else high


def number(value: float) -> str:
    """Short: 0, 0.0123, 4210, 1.2e-05."""
    if abs(value) >= 1000:
        return f"{value:.0f}" if abs(value) < 1e6 else f"{value:.1e}"
    return f"{value:.3g}" if value == 0 or abs(value) >= 1e-3 else f"{value:.1e}"


def _checked(heat: np.ndarray) -> np.ndarray:
    heat = np.asarray(heat)
    if heat.ndim != 2 or heat.size == 0 or not np.isfinite(heat).all():
        problem = "one that is not finite" if heat.ndim == 2 and heat.size else f"{heat.shape}"
        raise ValueError(f"expected a heat map (h, w) of finite numbers, got {problem}")
    return heat.astype(np.float32)


def _scaled(heat: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Values as fractions of the limits, in [0, 1]; all 0 where the limits are one."""
    low, high = limits
    return np.clip((heat - low) / (high - low), 0, 1) if high > low else np.zeros_like(heat)


def _colors(fractions: np.ndarray) -> np.ndarray:
    """(...,) in [0, 1] -> (..., 3) float32, 0 to 255."""
    from matplotlib import colormaps

    return colormaps[COLORS](fractions)[..., :3].astype(np.float32) * 255


def _bar(height: int) -> Image.Image:
    """The largest value's colour at the top."""
    fractions = np.linspace(1, 0, height, dtype=np.float32)[:, None]
    return Image.fromarray(np.repeat((_colors(fractions) + 0.5).astype(np.uint8), BAR_WIDTH, axis=1))
