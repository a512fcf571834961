"""The process that draws: limited, killed, and its pictures kept."""

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest

from rso.engine.thumbnails import THUMBNAILS, Thumbnails, forget_thumbnails
from rso.ledger import new_id

CONFINED = "from rso.dicom.thumbnail import confine; confine(); "


def drawing(tmp_path: Path, code: str, seconds: float = 10) -> Thumbnails:
    """Thumbnails drawn by this code."""
    return Thumbnails(tmp_path / THUMBNAILS, seconds=seconds, command=(sys.executable, "-c", code))


async def test_a_picture_is_drawn_once(tmp_path: Path, samples: Path) -> None:
    """Asked for by many at once, one process draws it; then it comes from the disk."""
    kept, key = Thumbnails(tmp_path / THUMBNAILS), new_id()
    source = samples / "CT_small.dcm"
    found = await asyncio.gather(*(kept.picture(key, source) for _ in range(5)))
    assert found[0] is not None
    assert found[0][8:12] == b"WEBP"
    assert len(set(found)) == 1
    again = Thumbnails(tmp_path / THUMBNAILS, command=("/bin/false",))
    assert await again.picture(key, source) == found[0]
    forget_thumbnails(tmp_path, [key])
    assert await again.picture(key, source) is None


async def test_a_hanging_decoder_is_killed(tmp_path: Path, samples: Path) -> None:
    """It ends with its children after its time, and is not started again at the next look."""
    note = tmp_path / "pid"
    code = (
        "import subprocess, os, time;"
        f"child = subprocess.Popen(['sleep', '600']); open({str(note)!r}, 'a')"
        ".write(f'{os.getpid()} {child.pid} ');"
        "time.sleep(600)"
    )
    kept, key = drawing(tmp_path, code, seconds=2), new_id()
    began = time.monotonic()
    assert await kept.picture(key, samples / "CT_small.dcm") is None
    assert time.monotonic() - began < 8
    pids = [int(pid) for pid in note.read_text().split()]
    for pid in pids:
        for _ in range(50):
            if not Path(f"/proc/{pid}").exists() or b"Z" in Path(f"/proc/{pid}/stat").read_bytes():
                break
            await asyncio.sleep(0.05)
        else:
            os.kill(pid, 9)
            pytest.fail("it lives on")
    assert await kept.picture(key, samples / "CT_small.dcm") is None
    assert len(note.read_text().split()) == len(pids)


@pytest.mark.parametrize(
    "code",
    [
        CONFINED + "held = bytearray(3 << 30); print('RIFF....WEBP')",
        CONFINED + "import tempfile; tempfile.TemporaryFile(buffering=0).write(b'x');"
        "print('RIFF....WEBP')",
        "import sys; sys.stdout.write('RIFF....WEBP' + 'x' * (1 << 20))",
        "print('<script>alert(1)</script>')",
        "import os; os.abort()",
    ],
    ids=["memory", "writes a file", "endless answer", "not a picture", "crashes"],
)
async def test_what_goes_wrong_gives_no_picture(tmp_path: Path, samples: Path, code: str) -> None:
    """Too much memory, a written file, too long an answer, something else, a crash."""
    kept = drawing(tmp_path, code)
    assert await kept.picture(new_id(), samples / "CT_small.dcm") is None


async def test_processor_time_is_limited(
    tmp_path: Path, samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder that spins ends by itself, long before its time on the clock."""
    code = "import rso.dicom.thumbnail as t; t.PROCESSOR_SECONDS = 1; t.confine()\nwhile True: pass"
    began = time.monotonic()
    assert await drawing(tmp_path, code, 30).picture(new_id(), samples / "CT_small.dcm") is None
    assert time.monotonic() - began < 20


async def test_broken_and_hostile_files(tmp_path: Path, samples: Path) -> None:
    """Cut, nested without end, or lying about its tiles: no picture, and nothing else happens."""
    kept = Thumbnails(tmp_path / THUMBNAILS)
    cut = tmp_path / "cut.dcm"
    cut.write_bytes((samples / "CT_small.dcm").read_bytes()[:5000])
    nested = tmp_path / "nested.dcm"
    head = (samples / "CT_small.dcm").read_bytes()[:330]
    nested.write_bytes(
        head + b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 50000
    )
    for source in (cut, nested, samples / "JPEG2000-embedded-sequence-delimiter.dcm"):
        assert await kept.picture(new_id(), source) is None
