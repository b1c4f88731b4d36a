"""Many pictures on one sheet."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from minidet.drawing.canvas import enlarge, enlargement, font, text_size

GAP = 8  # pixels between pictures
TEXT_SIZE = 13
PAPER, INK = (255, 255, 255), (30, 30, 30)


def grid(
    images: Sequence[np.ndarray],
    columns: int = 6,
    captions: Sequence[str] | None = None,
    title: str = "",
    least_side: int = 160,
) -> np.ndarray:
    """Put pictures on a sheet, row by row, each with a caption under it. Returns (H, W, 3) uint8.

    columns: the most in a row; fewer where the same number of rows is more evenly filled so.
    images: (h, w, 3) uint8, or float in [0, 1]; sizes may differ. Small ones are enlarged until their longer side has
    least_side pixels. Captions that are too long are cut.
    """
    if not len(images) or columns < 1:
        raise ValueError(f"grid: expected at least one image and one column, got {len(images)} and {columns}")
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"grid: expected a caption an image, got {len(captions)} for {len(images)}")
    pictures = [enlarge(image, enlargement(*image.shape[:2], least_side)) for image in images]
    rows = -(-len(pictures) // columns)
    columns = -(-len(pictures) // rows)  # eight pictures: two rows of four, not six and two
    cell_width, cell_height = max(p.width for p in pictures), max(p.height for p in pictures)
    line = text_size("Ag", TEXT_SIZE)[1] + 4
    caption_height = line if captions is not None else 0
    top = GAP + (line + 6 if title else 0)
    sheet = Image.new(
        "RGB",
        (GAP + columns * (cell_width + GAP), top + rows * (cell_height + caption_height + GAP)),
        PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP - 2), title, fill=INK, font=font(TEXT_SIZE + 3))
    for index, picture in enumerate(pictures):
        x = GAP + (index % columns) * (cell_width + GAP)
        y = top + (index // columns) * (cell_height + caption_height + GAP)
        sheet.paste(picture, (x, y))
        if captions is not None:
            draw.text((x, y + picture.height + 1), _cut(captions[index], cell_width), fill=INK, font=font(TEXT_SIZE))
    return np.array(sheet)


def _cut(text: str, width: int) -> str:
    if text_size(text, TEXT_SIZE)[0] <= width:
        return text
    while text and text_size(f"{text}…", TEXT_SIZE)[0] > width:
        text = text[:-1]
    return f"{text}…"
