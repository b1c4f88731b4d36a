"""MATLAB's files, version 5, which LSP and MPII come in: what is damaged or expands enormously is refused by name."""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minidet.data.files import AnnotationError, read_limited


@contextmanager
def open_matlab(path: Path, max_bytes: int) -> Iterator[io.BytesIO]:
    """The file for scipy.io.whosmat and loadmat, which execute nothing; any error within becomes an AnnotationError.

    Refused before: a file of more than max_bytes, or one of which a part decompressed has more.
    """
    data = read_limited(path, max_bytes)
    try:
        refuse_bombs(data, path, max_bytes)
        yield io.BytesIO(data)
    except AnnotationError:
        raise
    except Exception as error:  # scipy raises many kinds of exceptions on damaged files
        raise AnnotationError(f"{path}: expected a MATLAB file (version 5), but reading it failed: {error}") from error


def refuse_bombs(data: bytes, path: Path, max_bytes: int) -> None:
    """Walk over the elements of a MATLAB 5 file (tag: type and length) and try how far the compressed ones expand."""
    byte_order = "<" if data[126:128] == b"IM" else ">"
    position = 128  # behind the header
    while position + 8 <= len(data):
        kind, length = struct.unpack(byte_order + "II", data[position : position + 8])
        position += 8
        compressed = data[position : position + length] if kind == 15 else b""
        if compressed and len(zlib.decompressobj().decompress(compressed, max_bytes + 1)) > max_bytes:
            raise AnnotationError(f"{path}: expected at most {max_bytes:,} bytes, but decompressed it has more")
        position += length
