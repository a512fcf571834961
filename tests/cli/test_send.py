"""`rso send`: nothing that it was given is left out unsaid."""

import shutil
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import pydicom
import pytest

from rso.cli.send_files import find
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
