"""What all drawings share: enlarging small pictures, colours that colour-blind readers can tell apart, lines, text."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Okabe and Ito, "Color Universal Design" (2008), without black: eight colours that remain distinct with any form of
# colour blindness. By label: PALETTE[label % 7].
PALETTE = (
    (230, 159, 0),  # orange
    (86, 180, 233),  # sky blue
    (240, 228, 66),  # yellow
    (0, 158, 115),  # green
    (204, 121, 167),  # pink
    (213, 94, 0),  # vermilion
    (0, 114, 178),  # blue
)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)

LEAST_SIDE = 320  # pictures are enlarged until their longer side has this many pixels, so that lines and text fit
MOST_SIDE = 1024  # and larger ones are shrunk: on a photograph of 4000 pixels nobody sees a line of 3


def enlargement(height: int, width: int, least_side: int = LEAST_SIDE) -> float:
    """The whole number by which a picture is enlarged, or one divided by the whole number by which it is shrunk."""
    longer = max(height, width, 1)
    if longer > MOST_SIDE:
        return 1 / -(-longer // MOST_SIDE)
    return max(1, -(-least_side // longer))


def enlarge(image: np.ndarray, factor: float) -> Image.Image:
    """(H, W, 3) uint8, or float in [0, 1] -> a picture of factor x factor squares for pixels: no detail is invented.

    factor: as `enlargement` gives it; below 1, squares of 1 / factor pixels are averaged.
    """
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected an image (H, W, 3), got {image.shape}; a (3, H, W) one needs transpose(1, 2, 0)")
    if image.dtype != np.uint8:
        image = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(image))
    if factor < 1:
        return picture.reduce(round(1 / factor))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=size)


def text_size(text: str, size: int) -> tuple[int, int]:
    """(width, height) in pixels that a line of text takes up."""
    left, _, right, bottom = font(size).getbbox(text)
    return int(right - left), int(bottom)


def ink_on(color: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whichever is easier to read on a colour."""
    return BLACK if np.dot(color, (0.299, 0.587, 0.114)) > 110 else WHITE


def draw_line(draw: ImageDraw.ImageDraw, start, end, color, width: int, dash: int = 0) -> None:
    """A line with a dark edge, which shows on every background. dash: length of the dashes, 0 for none."""
    start, end = np.asarray(start, float), np.asarray(end, float)
    length = float(np.linalg.norm(end - start))
    stops = np.arange(0, max(length, 1e-9), 2 * dash) if dash else np.array([0.0])
    for ink, line_width in ((BLACK, width + 2), (color, width)):
        for stop in stops:
            direction = (end - start) / max(length, 1e-9)
            last = min(stop + dash, length) if dash else length
            draw.line([tuple(start + stop * direction), tuple(start + last * direction)], fill=ink, width=line_width)


def draw_tag(draw: ImageDraw.ImageDraw, corner: tuple[float, float], text: str, color, size: int = 13) -> None:
    """Text on a filled tag that stands on `corner` (x, y), or hangs from it where there is no room above."""
    if not text:
        return
    width, height = text_size(text, size)
    width, height = width + 6, height + 3
    picture_width = draw.im.size[0]
    x = min(max(corner[0], 0), max(picture_width - width, 0))
    y = corner[1] - height if corner[1] >= height else corner[1]
    draw.rectangle([x, y, x + width, y + height], fill=color)
    draw.text((x + 3, y + 1), text, fill=ink_on(color), font=font(size))
