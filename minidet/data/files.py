"""Reading and writing whole files without surprises: size limits on the way in, atomic replacement on the way out."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class AnnotationError(ValueError):
    """An annotation that cannot be trusted. The message names file and field, what was expected, what came."""


def read_limited(path: Path | str, max_bytes: int) -> bytes:
    """The bytes of an annotation file, refused before reading when there are more than max_bytes."""
    path = Path(path)
    try:
        if not path.is_file():
            raise AnnotationError(f"{path}: expected a file, found {'a folder' if path.is_dir() else 'nothing'} there")
        size = path.stat().st_size
        if size > max_bytes:
            raise AnnotationError(
                f"{path}: expected at most {max_bytes:,} bytes, got {size:,}; split the file or raise max_bytes"
            )
        return path.read_bytes()
    except OSError as error:
        raise AnnotationError(f"{path}: expected a file that can be read, but: {error.strerror or error}") from error


def read_lines(path: Path | str, max_bytes: int) -> list[str]:
    """The lines of a UTF-8 text file; the mark that some editors put at its beginning (BOM) is left out."""
    data = read_limited(path, max_bytes)
    try:
        return data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{path}: expected text in UTF-8, but reading it failed ({error}); convert it") from error


def leftovers(folder: Path, *names: str) -> list[Path]:
    """What write_atomic leaves of these files when it is killed: hidden, eight random characters behind the name."""
    pattern = re.compile(rf"\.({'|'.join(map(re.escape, names))})\.\w{{8}}")
    return [path for path in folder.iterdir() if pattern.fullmatch(path.name)]


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Holds a lock on the folder, which ends with the process at the latest and leaves no file.

    Raises FileExistsError if another process holds it. Does nothing where the system or the file system has no locks.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise FileExistsError(
            f"{folder}: another process is writing into this folder; wait for its end, or name a new folder"
        ) from error
    except OSError:  # some network file systems
        pass
    try:
        yield
    finally:
        os.close(handle)


def write_atomic(path: Path | str, data: bytes | str) -> None:
    """Write a file so that, whatever happens, there is either the old content or the whole new one."""
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's files are private; data sets are shared like ordinary files
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
