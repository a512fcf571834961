"""A small picture of one instance, drawn in a process of its own that may be killed.

Run as ``python -m rso.dicom.thumbnail FILE``: a WebP image on standard output, exit code 0; or
exit code 3 when the file holds no picture that the codecs can show. The process limits itself
before it loads any decoder, because pixel data comes from strangers: memory, processor time, and
no writing of files. Whoever starts it sets the time on the clock and kills it.
"""

import ctypes
import io
import resource
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["NO_PICTURE", "SIDE", "draw", "main"]

SIDE = 192  # pixels of the longer side
NO_PICTURE = 3
MEMORY_BYTES = 1536 << 20
PROCESSOR_SECONDS = 10
_MOST_FRAME_BYTES = 256 << 20
_SAMPLED = 640  # at most twice this many pixels a side go into the arithmetic
_KILL_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class NoPicture(Exception):  # noqa: N818  (says what is the case)
    """There is nothing to draw."""


def confine() -> None:
    """Give up what drawing does not need."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_SECONDS, PROCESSOR_SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    ctypes.CDLL(None).prctl(_KILL_WITH_PARENT, signal.SIGKILL)


def draw(path: Path) -> bytes:
    """The middle frame of an instance as WebP, windowed as its header says.

    Raises:
        NoPicture: It has no pixel data, or more in one frame than is worth decoding.
        Exception: Whatever a decoder says about a broken file.
    """
    # pydicom and the decoders are loaded after the limits are set.
    import pydicom  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415
    from pydicom.pixels.utils import pixel_array  # noqa: PLC0415

    header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    frames = int(header.get("NumberOfFrames") or 1)
    frame_bytes = (
        int(header.get("Rows", 0))
        * int(header.get("Columns", 0))
        * int(header.get("SamplesPerPixel", 1))
        * max(int(header.get("BitsAllocated", 8)) // 8, 1)
    )
    if not 0 < frame_bytes <= _MOST_FRAME_BYTES:
        raise NoPicture
    # Only the middle frame is decoded; of colour, RGB comes back whatever it was stored as.
    frame = pixel_array(pydicom.dcmread(path, force=True), index=max(frames // 2, 0))
    step = max(max(frame.shape[:2]) // _SAMPLED, 1)
    frame = frame[::step, ::step]
    colour = header.get("PhotometricInterpretation", "")
    if colour == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut  # noqa: PLC0415

        frame = apply_color_lut(frame, header)
    pixels = _eight_bits(frame, header) if frame.ndim == 3 else _windowed(frame, header)
    image = Image.fromarray(pixels[..., :3] if pixels.ndim == 3 else pixels)
    image.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    image.save(out, "WEBP", quality=80)
    return out.getvalue()


def _eight_bits(frame: Any, header: Any) -> Any:
    import numpy  # noqa: PLC0415

    if frame.dtype == numpy.uint8:
        return frame
    # What a palette gives fills its type; other samples say how many of their bits they use.
    palette = header.get("PhotometricInterpretation") == "PALETTE COLOR"
    bits = frame.dtype.itemsize * 8 if palette else int(header.BitsStored)
    return (frame.astype("float32") * (255.0 / (2**bits - 1))).clip(0, 255).astype("uint8")


def _windowed(frame: Any, header: Any) -> Any:
    """Grey values from 0 to 255 by the header's window, else between two percentiles."""
    import numpy  # noqa: PLC0415
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut  # noqa: PLC0415

    stored = frame
    values = apply_modality_lut(stored, header).astype("float32")
    low, high = _window(header)
    if high <= low and "VOILUTSequence" in header and values.dtype.kind != "f":
        values = apply_voi_lut(values, header).astype("float32")
    if high <= low:
        shown = values[stored != header["PixelPaddingValue"].value] if (
            "PixelPaddingValue" in header
        ) else values  # fmt: skip
        shown = shown[numpy.isfinite(shown)]
        low, high = numpy.percentile(shown, (1, 99)) if shown.size else (0.0, 1.0)
    if high <= low:
        low, high = float(values.min()), float(values.max())
    span = max(float(high) - float(low), 1e-6)
    grey = ((numpy.nan_to_num(values) - float(low)) * (255.0 / span)).clip(0, 255)
    if header.get("PhotometricInterpretation") == "MONOCHROME1":
        grey = 255.0 - grey
    return grey.astype("uint8")


def _window(header: Any) -> tuple[float, float]:
    """The first window of the header (PS3.3 C.11.2.1.2); equal ends when there is none."""
    centre, width = header.get("WindowCenter"), header.get("WindowWidth")
    if centre is None or width is None or centre == "" or width == "":
        return 0.0, 0.0
    first = [v if isinstance(v, (int, float)) else v[0] for v in (centre, width)]
    middle, half = float(first[0]), float(first[1]) / 2
    return (middle - half, middle + half) if half > 0 else (0.0, 0.0)


def main(arguments: "Sequence[str]") -> int:
    """Draw one file; nothing but the exit code tells of a failure."""
    confine()
    try:
        picture = draw(Path(arguments[0]))
    except Exception:
        # Every decoder fails in its own way, and none of it is for anybody to read.
        return NO_PICTURE
    sys.stdout.buffer.write(picture)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
