"""A file's bytes as a view, read from the disk as they are looked at."""

import contextlib
import mmap
from collections.abc import Iterator
from pathlib import Path

__all__ = ["mapped"]


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[memoryview]:
    """The whole of a file, for the time of the block; an empty file is an empty view.

    An exception keeps slices of the view alive in its traceback, and then the mapping ends with
    them: closing it at once would raise BufferError in place of what was the matter.

    Raises:
        OSError: The file cannot be opened.
    """
    if not path.stat().st_size:
        yield memoryview(b"")
        return
    with path.open("rb") as file:
        whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    view = memoryview(whole)
    try:
        yield view
    finally:
        with contextlib.suppress(BufferError):
            view.release()
            whole.close()
