"""Image files in and out. Only PNG and JPEG, whatever the name says, and never more pixels than the caller allows."""

from pathlib import Path

import numpy as np
from PIL import Image

MAX_PIXELS = 50_000_000  # 150 MB once decoded: more than any camera of the data sets, far less than a bomb

SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")  # how PNG and JPEG files begin

# EXIF orientation -> the operation that turns the stored picture upright (EXIF 2.3, tag 0x0112).
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


# Where Pillow finds a PNG's EXIF: its own chunk, ImageMagick's text, Adobe's.
_EXIF_IN_PNG = {"exif", "Raw profile type exif", "XML:com.adobe.xmp"}


class ImageError(ValueError):
    """A picture that cannot be read. The message names the file, what was expected, what came, what to do."""


def read_image(path: Path | str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a PNG or JPEG file as (H, W, 3) uint8 RGB, upright.

    The content decides about the format, not the name. Grey, palette and CMYK pictures are converted; 16-bit grey
    is scaled by 255/65535; transparent pixels show white; EXIF's orientation is applied.
    Raises ImageError for anything else: missing, empty, truncated, damaged, another format, too many pixels.
    """
    with _opened(path, max_pixels) as image:
        try:
            orientation = _orientation(image)
            image.load()
            upright = image if orientation == 1 else image.transpose(_UPRIGHT[orientation])
            return np.array(_to_rgb(upright))  # a copy: PIL's own buffer is read-only
        except Exception as error:  # Pillow's decoders raise half a dozen kinds of exceptions on damaged data
            raise ImageError(
                f"{path}: expected a complete {image.format} picture, but decoding its {image.width} x "
                f"{image.height} pixels failed ({error}); the file is truncated or damaged, copy it again"
            ) from error


def image_size(path: Path | str, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) of the upright picture, from the file's header alone. Raises ImageError."""
    with _opened(path, max_pixels) as image:
        swapped = _orientation(image) >= 5
        return (image.width, image.height) if swapped else (image.height, image.width)


def write_image(path: Path | str, image: np.ndarray, quality: int = 95) -> None:
    """Write (H, W, 3) uint8 RGB as PNG or JPEG, as the name's ending says. quality: JPEG only, 1..95."""
    path = Path(path)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"write_image: expected (H, W, 3) uint8, got {image.shape} {image.dtype}")
    if path.suffix.lower() == ".png":
        Image.fromarray(image).save(path, format="PNG", compress_level=3)
    elif path.suffix.lower() in (".jpg", ".jpeg"):
        Image.fromarray(image).save(path, format="JPEG", quality=quality)
    else:
        raise ValueError(f"write_image: expected a name ending in .png, .jpg or .jpeg, got {path.name!r}")


def _opened(path: Path | str, max_pixels: int) -> Image.Image:
    """Open a file and look at its header only: right format, allowed size."""
    path = Path(path)
    try:
        if not path.is_file():
            raise ImageError(f"{path}: expected a PNG or JPEG file, found {'a folder' if path.is_dir() else 'nothing'}")
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        told = error.strerror or error
        raise ImageError(f"{path}: expected a PNG or JPEG file that can be read, but: {told}") from error
    if not start:
        raise ImageError(f"{path}: expected a PNG or JPEG picture, got an empty file (0 bytes); copy it again")
    try:
        image = Image.open(path, formats=("PNG", "JPEG"))  # reads the header; the pixels only on load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{path}: expected at most {max_pixels:,} pixels ({error}); downscale the picture") from error
    except Exception as error:  # UnidentifiedImageError, SyntaxError, struct.error, OSError ...
        if start.startswith(SIGNATURES):
            raise ImageError(
                f"{path}: expected a whole picture of 8 or 16 bits, got a file that is truncated, damaged or of a rare "
                f"kind ({error}); copy it again, or convert it to PNG"
            ) from error
        raise ImageError(
            f"{path}: expected a PNG or JPEG picture, got a file that starts with {start!r}; convert it to PNG"
        ) from error
    if image.width * image.height > max_pixels:
        image.close()
        raise ImageError(
            f"{path}: expected at most {max_pixels:,} pixels, got {image.width} x {image.height} = "
            f"{image.width * image.height:,}; downscale the picture or raise max_pixels"
        )
    return image


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8 of a picture that is not decoded yet; 1 (upright) where there is none or it cannot be
    understood, as viewers do. A PNG's is looked for before its pixels only: Pillow would decode them to look behind."""
    if image.format == "PNG" and not _EXIF_IN_PNG & image.info.keys():
        return 1
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # a damaged EXIF block says nothing about the pixels
        return 1
    return value if value in _UPRIGHT else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any mode that a PNG or JPEG can have -> RGB."""
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip at 255
        values = np.asarray(image, dtype=np.uint32)
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if "A" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
