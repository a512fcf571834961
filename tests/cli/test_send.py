"""`rso send`: nothing that it was given is left out unsaid."""

import http.server
import shutil
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pydicom
import pytest

from rso.cli import send as module
from rso.cli.send_files import find
from rso.dicom.part10 import read_file_meta
from rso.testing.site import Site, wait_for
from rso.testing.study import make_study


def uids_of(path: Path) -> str:
    """The SOP Instance UID and Patient ID of a file."""
    read = pydicom.dcmread(path)
    return f"{read.SOPInstanceUID} {read.PatientID}"


def like(file: Path, target: Path, **values: Any) -> Path:
    """Another dataset under the same SOP Instance UID."""
    other = pydicom.dcmread(file)
    for keyword, value in values.items():
        setattr(other, keyword, value)
    other.save_as(target)
    return target


@pytest.fixture
def study(samples: Path, tmp_path: Path) -> list[Path]:
    """Four instances of CT1."""
    return make_study(samples / "CT_small.dcm", tmp_path / "study", 4)


def test_a_double_hides_no_file_behind_it(study: list[Path], tmp_path: Path) -> None:
    """All files after two of one UID are stamped and found; the same bytes count once."""
    other = like(study[0], tmp_path / "other.dcm", StudyDescription="another")
    shutil.copy(study[0], tmp_path / "same.dcm")
    paths = [study[0], tmp_path / "same.dcm", other, *study[1:]]
    found = find(paths, "0123456789", tmp_path)
    assert (found.skipped, found.failed, found.same) == ([], [], 1)
    first, second = found.rounds
    assert [uids_of(p) for p in first.values()] == [
        f"{uid} 0123456789" for uid in (pydicom.dcmread(p).SOPInstanceUID for p in study)
    ]
    (kept,) = second.values()
    assert pydicom.dcmread(kept).StudyDescription == "another"
    assert uids_of(kept) == uids_of(next(iter(first.values())))


def test_what_is_no_instance_is_told_from_what_cannot_be_read(
    study: list[Path], tmp_path: Path
) -> None:
    """A text is skipped; a cut meta, a missing file, and one of a ZIP's members have failed."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "readme.txt").write_text("not DICOM")
    (folder / "cut.dcm").write_bytes(study[0].read_bytes()[:150])
    with zipfile.ZipFile(folder / "some.zip", "w") as packed:
        for file in study[:3]:
            packed.write(file, file.name)
        begin = packed.infolist()[1].header_offset + 2000
    data = bytearray((folder / "some.zip").read_bytes())
    data[begin] ^= 1
    (folder / "some.zip").write_bytes(data)
    found = find([folder, tmp_path / "gone.dcm"], "", tmp_path)
    assert found.count == 2
    assert [line.partition(":")[0] for line in found.skipped] == [str(folder / "readme.txt")]
    assert [line.partition(":")[0] for line in found.failed] == [
        str(folder / "cut.dcm"), f"{folder / 'some.zip'}, file 2", str(tmp_path / "gone.dcm"),
    ]  # fmt: skip


def test_an_exam_is_complete_only_with_all_of_it(
    site: Site, study: list[Path], tmp_path: Path
) -> None:
    """Sent without a file that cannot be read: exit 1, not complete; with it, all are kept."""
    number = site.rso("exam", "create", "--facility", "NORTH", "--patient-name",
                      "CompressedSamples^CT1", "--json")["exam_number"]  # fmt: skip
    token = site.rso("token", "create", "--user", "tech@example.org", "--json")["token"]
    other = like(study[0], tmp_path / "study" / "other.dcm", StudyDescription="another")
    cut = tmp_path / "study" / "zcut.dcm"
    cut.write_bytes(study[0].read_bytes()[:150])
    words = ("send", number, str(tmp_path / "study"), "--stamp", "--json",
             "--url", f"http://127.0.0.1:{site.web}", "--token", token)  # fmt: skip
    done = site.run(*words)
    report = msgspec.json.decode(done.stdout)
    assert (done.returncode, report["stored"], report["total"]) == (1, 5, 6)
    assert [line.partition(":")[0] for line in report["failed"]] == [str(cut)]
    (exam,) = site.exams()
    assert exam["expected_instances"] is None
    held = wait_for(site.holds)
    assert [(h["kind"], h["instances"]) for h in held] == [("instance", 1)]
    cut.unlink()
    again = site.rso(*words)
    assert (again["stored"], again["total"], again["already"]) == (5, 5, 5)
    (exam,) = site.exams()
    assert exam["expected_instances"] == 4
    # Of the two under one UID, neither was sent a second time.
    assert other.is_file()
    assert len(site.holds()) == 1


class Busy(http.server.BaseHTTPRequestHandler):
    """Says 429 and when to come again, as often as it has something to say."""

    said: list[tuple[int, str]]

    def do_POST(self) -> None:
        """The next answer."""
        self.rfile.read(int(self.headers["Content-Length"]))
        status, after = self.said.pop(0)
        self.send_response(status)
        if after:
            self.send_header("Retry-After", after)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def busy() -> Iterator[http.server.HTTPServer]:
    """One that listens."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_it_comes_again_when_it_is_told(
    busy: http.server.HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the seconds of Retry-After, a minute at most; else after pauses of its own."""
    slept: list[float] = []
    monkeypatch.setattr("rso.cli.send.time.sleep", slept.append)
    Busy.said = [
        (429, "7"), (429, "86400"), (429, "9" * 5000), (429, "soon"), (429, ""), (503, "50"),
        (200, ""),
    ]  # fmt: skip
    client = module._Client(f"http://127.0.0.1:{busy.server_port}", "token", "0123456789")
    assert client.ask("/uploads", "text/plain", 1, lambda: iter([b"x"])) == (200, {})
    assert slept == [7, 60, 60, 4, 8, 16]


def test_it_says_what_is_kept_under_another_uid(
    site: Site, study: list[Path], tmp_path: Path
) -> None:
    """The file meta says another UID than the dataset: not stored as it was sent, and why."""
    data = bytearray(study[0].read_bytes())
    uid = read_file_meta(bytes(data)).sop_instance_uid
    at = data.index(uid.encode())
    data[at : at + len(uid)] = uid[:-4].encode() + b"9999"
    study[0].write_bytes(data)
    number = site.rso("exam", "create", "--facility", "NORTH", "--patient-name",
                      "CompressedSamples^CT1", "--json")["exam_number"]  # fmt: skip
    token = site.rso("token", "create", "--user", "tech@example.org", "--json")["token"]
    done = site.run("send", number, str(tmp_path / "study"), "--json",
                    "--url", f"http://127.0.0.1:{site.web}", "--token", token)  # fmt: skip
    report = msgspec.json.decode(done.stdout)
    assert (done.returncode, report["stored"], report["total"]) == (1, 3, 4)
    (reason,) = report["reasons"]
    assert reason.startswith(f"kept as {uid}: another SOP Instance UID")
