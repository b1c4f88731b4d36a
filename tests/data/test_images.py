"""Picture files: what is accepted comes out right, all else is refused with the file's name."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minidet.data.images import ImageError, image_size, read_image, write_image

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)


def smooth_picture(height: int = 40, width: int = 64) -> np.ndarray:
    """A picture that JPEG keeps nearly as it is."""
    y, x = np.mgrid[:height, :width]
    return np.stack([50 + 2 * x, 60 + 3 * y, 200 - x - y], axis=2).astype(np.uint8)


def encoded(format: str, image: np.ndarray = PICTURE, mode: str = "RGB", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).convert(mode).save(buffer, format=format, **options)
    return buffer.getvalue()


def test_a_png_comes_back_as_it_was_written(tmp_path):
    write_image(tmp_path / "a.png", PICTURE)
    image = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image, PICTURE)
    assert image.dtype == np.uint8
    assert image.flags.writeable
    assert image_size(tmp_path / "a.png") == (20, 30)


def test_a_jpeg_comes_back_nearly_as_it_was_written(tmp_path):
    write_image(tmp_path / "a.jpg", smooth_picture())
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - smooth_picture()).max() <= 6


def test_the_content_decides_about_the_format_and_not_the_name(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded("PNG"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), PICTURE)


@pytest.mark.parametrize("format", ["BMP", "GIF", "TIFF", "WEBP", "PPM", "ICO"])
def test_other_formats_are_refused_even_under_the_name_png(tmp_path, format):
    (tmp_path / "a.png").write_bytes(encoded(format))
    with pytest.raises(
        ImageError, match=r"a\.png: expected a PNG or JPEG picture, got a file that starts with .*convert"
    ):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"hello, this is no picture", "a PNG or JPEG picture, got a file that starts"),
        (b"<svg></svg>", "a PNG or JPEG picture, got a file that starts"),
        (b"\x89PNG\r\n\x1a\n", "a whole picture of 8 or 16 bits, got a file that is truncated"),
        (b"\xff\xd8\xff", "a whole picture of 8 or 16 bits, got a file that is truncated"),
    ],
)
def test_what_is_not_a_picture_is_refused_with_its_name(tmp_path, content, told):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError, match=rf"a\.png: expected {told}"):
        read_image(tmp_path / "a.png")


def test_missing_files_folders_and_empty_files_are_refused(tmp_path):
    with pytest.raises(ImageError, match=r"gone\.png: expected a PNG or JPEG file, found nothing"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(ImageError, match="found a folder"):
        read_image(tmp_path)
    (tmp_path / "zero.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"zero\.png: .* empty file \(0 bytes\)"):
        read_image(tmp_path / "zero.png")


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_a_truncated_picture_is_refused_with_its_name(tmp_path, format):
    data = encoded(format)
    for share in (0.2, 0.5, 0.8, 0.95):
        (tmp_path / "cut.img").write_bytes(data[: int(share * len(data))])
        with pytest.raises(ImageError, match=r"cut\.img: expected"):
            read_image(tmp_path / "cut.img")


@settings(max_examples=60, deadline=None)
@given(position=st.integers(0, 10_000), bit=st.integers(0, 7), format=st.sampled_from(["PNG", "JPEG"]))
def test_a_damaged_picture_never_causes_another_error(tmp_path_factory, position, bit, format):
    data = bytearray(encoded(format))
    data[position % len(data)] ^= 1 << bit
    path = tmp_path_factory.getbasetemp() / "flipped.img"
    path.write_bytes(bytes(data))
    try:
        image = read_image(path)
    except ImageError as error:
        assert "flipped.img" in str(error)  # noqa: PT017 - both outcomes are allowed, other exceptions are not
    else:
        assert image.ndim == 3
        assert image.dtype == np.uint8


def png_header_only(width: int, height: int) -> bytes:
    """A PNG that claims to be huge and holds 1 kB of zeros."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8_000, 12_000, 60_000])  # below and above Pillow's own two limits
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_picture_with_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(png_header_only(side, side))
    with pytest.raises(ImageError, match=r"bomb\.png: expected at most 50,000,000 pixels"):
        read_image(tmp_path / "bomb.png")


def test_the_pixel_limit_is_the_callers(tmp_path):
    write_image(tmp_path / "a.png", PICTURE)
    assert read_image(tmp_path / "a.png", max_pixels=600).shape == (20, 30, 3)
    with pytest.raises(ImageError, match=r"at most 599 pixels, got 30 x 20 = 600"):
        read_image(tmp_path / "a.png", max_pixels=599)


def test_grey_pictures_get_three_equal_channels(tmp_path):
    gray = PICTURE[:, :, 0]
    Image.fromarray(gray).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.repeat(gray[:, :, None], 3, axis=2))


def test_black_and_white_pictures_become_0_and_255(tmp_path):
    Image.fromarray(PICTURE[:, :, 0] > 127).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[:, :, 1], np.where(PICTURE[:, :, 0] > 127, 255, 0))


def test_16_bit_pictures_are_scaled_and_not_clipped(tmp_path):
    values = np.array([[0, 128, 257, 1000, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    expected = np.rint(values * (255 / 65535)).astype(np.uint8)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[:, :, 0], expected)
    assert expected.tolist() == [[0, 0, 1, 4, 128, 255]]


def test_palette_pictures_show_their_colours(tmp_path):
    picture = Image.new("P", (3, 1))
    picture.putpalette([10, 20, 30, 200, 100, 0, 0, 0, 255])
    picture.putdata([2, 0, 1])
    picture.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").tolist() == [[[0, 0, 255], [10, 20, 30], [200, 100, 0]]]


def test_transparent_pixels_show_white(tmp_path):
    rgba = np.array([[[200, 0, 0, 255], [200, 0, 0, 0], [200, 0, 0, 51]]], dtype=np.uint8)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert (
        np.abs(read_image(tmp_path / "a.png")[0].astype(int) - [(200, 0, 0), (255, 255, 255), (244, 204, 204)]).max()
        <= 1
    )


def test_a_transparent_palette_colour_shows_white(tmp_path):
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 200, 100, 0])
    picture.putdata([0, 1])
    picture.save(tmp_path / "a.png", transparency=0)
    assert read_image(tmp_path / "a.png").tolist() == [[[255, 255, 255], [200, 100, 0]]]


def test_a_cmyk_jpeg_shows_its_colours(tmp_path):
    cmyk = np.zeros((16, 16, 4), np.uint8)
    cmyk[:, :, 1] = 255  # full magenta and half yellow
    cmyk[:, :, 2] = 128
    Image.merge("CMYK", [Image.fromarray(cmyk[:, :, k]) for k in range(4)]).save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - (255, 0, 127)).max() <= 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(tmp_path, orientation):
    upright = PICTURE
    # How a camera would store the upright picture under each orientation (EXIF's table: where row 0, column 0 are).
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), upright)
    assert image_size(tmp_path / "a.png") == (20, 30)


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_the_size_of_a_picture_is_read_without_decoding_it(tmp_path, monkeypatch, format):
    (tmp_path / "a").write_bytes(encoded(format))
    decoded = []
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: decoded.append(image))
    assert image_size(tmp_path / "a") == (20, 30)
    assert not decoded


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_broken_exif_block_leaves_the_picture_upright(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded("JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12"))
    assert read_image(tmp_path / "a.jpg").shape == (20, 30, 3)


def test_only_whole_uint8_colour_pictures_are_written_and_only_as_png_or_jpeg(tmp_path):
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\) uint8, got \(20, 30\) uint8"):
        write_image(tmp_path / "a.png", PICTURE[:, :, 0])
    with pytest.raises(ValueError, match=r"ending in \.png"):
        write_image(tmp_path / "a.gif", PICTURE)
