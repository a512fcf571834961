"""Thumbnails of real files in every encoding that pydicom ships."""

import io
import warnings
from pathlib import Path

import numpy
import pydicom
import pytest
from PIL import Image
from pydicom.pixels import set_pixel_data
from pydicom.pixels.decoders.base import _PIXEL_DATA_DECODERS

from rso.dicom.thumbnail import SIDE, NoPicture, draw

# 12-bit JPEG Extended: only a GPL codec reads it. The others hold broken pixel data.
UNREADABLE = {"JPEG-lossy.dcm", "JPGExtended.dcm", "JPEG2000-embedded-sequence-delimiter.dcm",
              "MR_truncated.dcm", "badVR.dcm"}  # fmt: skip


def shown(path: Path) -> Image.Image:
    """The picture of a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what is odd in the samples
        return Image.open(io.BytesIO(draw(path)))


def test_every_sample_is_drawn(samples: Path) -> None:
    """Whatever pydicom ships with pixel data becomes a small picture, in twelve encodings."""
    syntaxes = set()
    for path in sorted(samples.rglob("*.dcm")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path, force=True)
        if not {"PixelData", "Rows"} <= set(dataset.dir()) or "TransferSyntaxUID" not in (
            dataset.file_meta
        ):
            continue
        if path.name in UNREADABLE:
            with pytest.raises(Exception, match=r"."):
                shown(path)
            continue
        picture = shown(path)
        assert picture.format == "WEBP"
        assert max(picture.size) == min(SIDE, max(dataset.Rows, dataset.Columns)), path.name
        syntaxes.add(dataset.file_meta.TransferSyntaxUID)
    assert len(syntaxes) >= 11
    assert all(_PIXEL_DATA_DECODERS[uid][0].is_available for uid in _PIXEL_DATA_DECODERS)


def test_colours_stay_what_they_are(samples: Path) -> None:
    """The red bar is red, in RGB, in YBR, and in a lossy encoding."""
    for name in ("SC_rgb_rle.dcm", "SC_ybr_full_422_uncompressed.dcm", "SC_rgb_jpeg_dcmtk.dcm"):
        red, green, blue = shown(samples / name).convert("RGB").getpixel((50, 5))
        assert red > 200, name
        assert green < 60, name
        assert blue < 60, name


def drawn(tmp_path: Path, samples: Path, pixels: numpy.ndarray, **header: object) -> numpy.ndarray:
    """The grey values of a picture made of these pixels."""
    dataset = pydicom.dcmread(samples / "MR_small.dcm")
    for keyword in ("WindowCenter", "WindowWidth", "SmallestImagePixelValue",
                    "LargestImagePixelValue"):  # fmt: skip
        if keyword in dataset:
            del dataset[keyword]
    kind = str(header.pop("PhotometricInterpretation", "MONOCHROME2"))
    set_pixel_data(dataset, pixels, kind, 16)
    for keyword, value in header.items():
        setattr(dataset, keyword, value)
    path = tmp_path / "made.dcm"
    dataset.save_as(path)
    return numpy.asarray(shown(path).convert("L"))


def test_window_inversion_and_middle_frame(tmp_path: Path, samples: Path) -> None:
    """The header's window is used, MONOCHROME1 is turned round, the middle frame is shown."""
    ramp = numpy.tile(numpy.arange(64, dtype="uint16") * 100, (64, 1))
    windowed = drawn(tmp_path, samples, ramp, WindowCenter=3200, WindowWidth=200)
    assert windowed[32, 10] < 10
    assert windowed[32, 55] > 245
    assert abs(int(drawn(tmp_path, samples, ramp)[32, 32]) - 127) < 12  # percentiles
    inverted = drawn(tmp_path, samples, ramp, PhotometricInterpretation="MONOCHROME1")
    assert inverted[32, 2] > 230 > 30 > inverted[32, 61]
    frames = numpy.stack([ramp[:, ::-1], ramp, ramp[:, ::-1]])
    middle = drawn(tmp_path, samples, frames)
    assert middle[32, 2] < 30 < 230 < middle[32, 61]


def test_no_pixels_no_picture(tmp_path: Path, samples: Path) -> None:
    """A report has no picture; nor has a frame too large to be worth it."""
    with pytest.raises(NoPicture):
        shown(samples / "test-SR.dcm")
    dataset = pydicom.dcmread(samples / "MR_small.dcm")
    dataset.Rows = dataset.Columns = 65535
    dataset.save_as(tmp_path / "large.dcm")
    with pytest.raises(NoPicture):
        shown(tmp_path / "large.dcm")
