"""The two processes, from outside: real commands, real associations, real files."""

import http.client
import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import generate_uid

from rso.core.number import make_number
from rso.dicom.part10 import read_file_meta
from rso.testing.modality import send_files
from rso.testing.pacs import Pacs
from rso.testing.site import Site, wait_for


def send(site: Site, ae_title: str, *files: Path, host: str = "127.0.0.1") -> dict[str, int]:
    """Send files as a modality does."""
    return send_files(
        files, host=host, port=site.dicom, calling_ae_title=ae_title, called_ae_title="RSO"
    )


def variant(source: Path, target: Path, **changes: str) -> Path:
    """A copy of a file as a new instance, with elements changed."""
    dataset = pydicom.dcmread(source)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    for name, value in changes.items():
        setattr(dataset, name, value)
    dataset.save_as(target)
    return target


def digests(pacs: Pacs, files: list[Path]) -> bool:
    """Whether the PACS has each file's dataset byte for byte."""
    got = pacs.by_uid()
    for file in files:
        data = file.read_bytes()
        meta = read_file_meta(data[: 1 << 17])
        if got[meta.sop_instance_uid].dataset != data[meta.dataset_offset :]:
            return False
    return True


def test_full_process(site: Site, samples: Path, tmp_path: Path, pacs: Pacs) -> None:
    """A requested exam's images arrive by number, and n of n reach the PACS unchanged."""
    series = sorted((samples / "dicomdirtests" / "77654033" / "CT2").iterdir())
    name = str(pydicom.dcmread(series[0]).PatientName)
    number = site.rso("exam", "create", "--facility", "NORTH", "--patient-name", name,
                      "--priority", "stat", "--json")["exam_number"]  # fmt: skip
    out = tmp_path / "stamped"
    site.rso("stamp", number, str(series[0].parent), "--out", str(out), "--json")
    files = sorted(out.iterdir())
    assert set(send(site, "NORTHCT", *files).values()) == {0}
    exam = wait_for(lambda: next((e for e in site.exams() if e["status"] == "delivered"), None))
    assert exam["exam_number"] == number
    assert exam["origin"] == "request"
    assert exam["instances"] == len(files)
    assert exam["deliveries"][0]["state"] == "delivered"
    assert exam["deliveries"][0]["acknowledged"] == exam["deliveries"][0]["total"] == len(files)
    assert exam["flags"] == ["one demographic"]
    assert digests(pacs, files)


def test_integration_process(site: Site, samples: Path, tmp_path: Path, pacs: Pacs) -> None:
    """Unknown creates, known joins, a blank birth date joins with a flag, a wrong one is held."""
    ct = samples / "CT_small.dcm"
    who = {"PatientID": "P1", "PatientName": "DOE^JANE", "PatientBirthDate": "19700131",
           "PatientSex": "F", "AccessionNumber": ""}  # fmt: skip
    first = variant(ct, tmp_path / "1", **who)
    send(site, "NORTHPACS", first)
    exam = wait_for(lambda: (site.exams() or [None])[0])
    assert (exam["origin"], exam["studies"][0]["row"]) == ("images", 18)
    other = {"StudyInstanceUID": generate_uid()}
    send(site, "NORTHPACS", variant(ct, tmp_path / "2", **{**who, **other}))
    wait_for(lambda: site.exams()[0]["instances"] == 2)
    blank = {"StudyInstanceUID": generate_uid(), "PatientBirthDate": ""}
    send(site, "NORTHPACS", variant(ct, tmp_path / "3", **{**who, **blank}))
    wait_for(lambda: site.exams()[0]["flags"] == ["one demographic"])
    differs = {"StudyInstanceUID": generate_uid(), "PatientBirthDate": "19700201"}
    send(site, "NORTHPACS", variant(ct, tmp_path / "4", **{**who, **differs}))
    hold = wait_for(site.holds)[0]
    assert (hold["row"], hold["kind"], hold["instances"]) == (16, "study", 1)
    # The linked Study comes again as another patient: held, and its routing stops.
    number = site.rso("exam", "create", "--facility", "NORTH", "--patient-name", "ROE^ANN",
                      "--json")["exam_number"]  # fmt: skip
    send(site, "NORTHCT", variant(ct, tmp_path / "5", **{**who, "PatientID": number}))
    wait_for(lambda: any(h["row"] == 2 for h in site.holds()))
    shown = next(e for e in site.exams() if e["exam_number"] == exam["exam_number"])
    assert "stopped" in {s["state"] for s in shown["studies"]}
    assert len(site.exams()) == 2
    assert len(pacs.by_uid()) == 3


def test_facilities_never_mix(site: Site, samples: Path, tmp_path: Path) -> None:
    """One AE title and one Patient ID at two facilities make two exams of two patients."""
    who = {"PatientID": "P1", "PatientName": "DOE^JANE", "PatientBirthDate": "19700131"}
    file = variant(samples / "CT_small.dcm", tmp_path / "1", **who)
    send(site, "NORTHPACS", file)
    # The other clinic's storage, on its own network.
    real = socket.create_connection

    def from_south(address: object, timeout: float | None = None) -> socket.socket:
        return real(address, timeout, source_address=("127.0.0.2", 0))  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "create_connection", from_south)
        send(site, "NORTHPACS", file)
    exams = wait_for(lambda: found if len(found := site.exams()) == 2 else None)
    assert {e["facility"] for e in exams} == {"NORTH", "SOUTH"}
    assert [e["instances"] for e in exams] == [1, 1]


def test_wrong_number_is_held_and_released_corrected(
    site: Site, samples: Path, tmp_path: Path, pacs: Pacs
) -> None:
    """A mistyped number waits for a person; released, it leaves with the exam's Patient ID."""
    ct = samples / "CT_small.dcm"
    number = site.rso("exam", "create", "--facility", "NORTH", "--patient-name",
                      "CompressedSamples^CT1", "--patient-id", "OWN-7", "--json")["exam_number"]  # fmt: skip
    send(site, "NORTHCT", variant(ct, tmp_path / "1", PatientID=make_number()))
    hold = wait_for(site.holds)[0]
    assert (hold["row"], hold["reason"]) == (9, "wrong number")
    refused = site.run("hold", "release", hold["id"], "--exam", make_number(), "--reason", "x")
    assert refused.returncode == 1
    assert "no exam has the number" in refused.stderr
    site.rso("hold", "release", hold["id"], "--exam", number, "--reason", "read on the phone")
    wait_for(lambda: site.exams()[0]["status"] == "delivered")
    assert not site.holds()
    received = next(iter(pacs.by_uid().values()))
    assert b"OWN-7" in received.dataset
    assert site.run("audit", "verify").returncode == 0


def test_same_instance_with_other_bytes_is_kept_and_held(
    site: Site, samples: Path, tmp_path: Path, pacs: Pacs
) -> None:
    """The same bytes again change nothing; other bytes under the same UID wait on their own."""
    ct = samples / "CT_small.dcm"
    send(site, "NORTHPACS", ct)
    send(site, "NORTHPACS", ct)
    dataset = pydicom.dcmread(ct)
    dataset.PixelData = bytes(len(dataset.PixelData))
    dataset.save_as(tmp_path / "other")
    send(site, "NORTHPACS", tmp_path / "other")
    hold = wait_for(site.holds)[0]
    assert hold["kind"] == "instance"
    exam = wait_for(lambda: next((e for e in site.exams() if e["status"] == "delivered"), None))
    assert exam["instances"] == 1
    assert len(pacs.received) == 1


def test_killed_roles_lose_nothing(site: Site, samples: Path, tmp_path: Path, pacs: Pacs) -> None:
    """Kill -9 of work and of receive during a send: what was acknowledged arrives, once kept."""
    mr = samples / "MR_small.dcm"
    files = [variant(mr, tmp_path / f"{i}.dcm") for i in range(120)]
    acknowledged: set[str] = set()
    for i in range(0, 120, 20):

        def part(chunk: list[Path] = files[i : i + 20]) -> dict[str, int] | None:
            try:
                return send(site, "NORTHPACS", *chunk)
            except Exception:
                return None

        answers = wait_for(part)
        acknowledged |= {uid for uid, status in answers.items() if status == 0}
        site.kill("work" if i % 40 else "receive")
    assert len(acknowledged) == 120
    wait_for(lambda: acknowledged <= pacs.by_uid().keys())
    assert sum(e["instances"] for e in site.exams()) == 120
    archived = list((site.folder / "site" / "data" / "archive").rglob("*.dcm"))
    assert len(archived) == 120
    assert digests(pacs, files)


def test_answers_of_a_destination_are_classified(tmp_path: Path, samples: Path) -> None:
    """A warning counts as stored, a failure stops one instance, a busy PACS is tried again."""
    mr = samples / "MR_small.dcm"
    files = [variant(mr, tmp_path / f"{i}.dcm") for i in range(4)]
    uids = [str(pydicom.dcmread(f).SOPInstanceUID) for f in files]
    script = {uids[1]: 0xB000, uids[2]: 0xC000}
    pacs = Pacs(lambda uid, n: 0xA700 if uid == uids[3] and n < 2 else script.get(uid, 0))
    port = pacs.start()
    pacs.stop()  # down at first
    site = Site(tmp_path, port)
    site.start()
    try:
        send(site, "NORTHPACS", *files)
        wait_for(lambda: [d["state"] for e in site.exams() for d in e["deliveries"]] == ["waiting"])
        pacs.start(port)
        shown = wait_for(
            lambda: next((d for e in site.exams() for d in e["deliveries"]
                          if d["acknowledged"] == 3), None)
        )  # fmt: skip
        assert (shown["state"], shown["total"]) == ("stopped", 4)
        assert "C000" in {p["code"] for p in shown["problems"]}
        assert pacs.asked[uids[3]] == 2
        assert pacs.asked[uids[2]] == 1
    finally:
        assert site.stop() == 0
        pacs.stop()


def test_strangers_and_hostile_peers(site: Site, samples: Path, peer: Callable[[str], str]) -> None:
    """An unknown AE gets one code; silence, lies and noise disturb nobody."""
    sockets = []
    for noise in (b"", b"\x01\x00\xff\xff\xff\xff", b"\x04\x00\x00\x00\x00\x10" + bytes(16),
                  b"GET / HTTP/1.1\r\n\r\n", b"\x01\x00\x00\x00\x00\x50" + b"\xff" * 80):  # fmt: skip
        sock = socket.create_connection(("127.0.0.1", site.dicom))
        sock.sendall(noise)
        sockets.append(sock)
    refused = subprocess.run(
        [peer("echoscu"), "-aet", "STRANGER", "-aec", "RSO", "127.0.0.1", str(site.dicom)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.returncode != 0
    assert "Calling AE Title Not Recognized" in refused.stderr
    answers = send(site, "NORTHPACS", samples / "CT_small.dcm")
    assert set(answers.values()) == {0}
    for sock in sockets:
        sock.close()


@pytest.mark.peers
def test_dcmtk_sends_every_transfer_syntax(
    site: Site, samples: Path, tmp_path: Path, pacs: Pacs, peer: Callable[[str], str]
) -> None:
    """A folder of mixed real images by DCMTK: each acknowledged one reaches the PACS unchanged."""
    known = ["CT_small", "MR_small", "MR_small_RLE", "MR_small_bigendian", "JPEG2000", "JPEG-lossy",
             "JPGExtended", "MR_small_jpeg_ls_lossless", "rtplan", "waveform_ecg", "reportsi",
             "US1_J2KR", "693_J2KI", "MR2_J2KI", "SC_rgb_rle"]  # fmt: skip
    names = [f"{name}.dcm" for name in known if (samples / f"{name}.dcm").exists()]
    assert len(names) > 7
    (tmp_path / "in").mkdir()
    for name in names:
        (tmp_path / "in" / name).write_bytes((samples / name).read_bytes())
    sent = subprocess.run(
        [peer("dcmsend"), "-v", "-aet", "NORTHPACS", "-aec", "RSO", "--scan-directories",
         "--no-halt", "--decompress-never", "127.0.0.1", str(site.dicom), str(tmp_path / "in")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert sent.returncode == 0, sent.stderr
    # Some samples are the same instance in other Transfer Syntaxes: one is kept, the rest held.
    uids = {str(pydicom.dcmread(f).SOPInstanceUID) for f in (tmp_path / "in").iterdir()}

    def taken() -> int:
        exams = sum(e["instances"] for e in site.exams())
        return exams + sum(h["instances"] for h in site.holds() if h["kind"] == "study")

    wait_for(lambda: taken() >= len(uids))
    delivered = sum(e["instances"] for e in site.exams())
    wait_for(lambda: len(pacs.by_uid()) == delivered)
    assert delivered > 4
    archive: dict[str, set[bytes]] = {}
    for path in (site.folder / "site" / "data" / "archive").rglob("*.dcm"):
        data = path.read_bytes()
        meta = read_file_meta(data[: 1 << 17])
        archive.setdefault(meta.sop_instance_uid, set()).add(data[meta.dataset_offset :])
    for uid, received in pacs.by_uid().items():
        assert received.dataset in archive[uid]


def test_upload_to_an_exam_resumes_and_completes(
    site: Site, samples: Path, tmp_path: Path, pacs: Pacs
) -> None:
    """Rso send uploads a folder to an exam; run again, it finds everything there."""
    folder = tmp_path / "in"
    folder.mkdir()
    files = [variant(samples / "CT_small.dcm", folder / f"{i}.dcm") for i in range(60)]
    (folder / "readme.txt").write_text("not DICOM")
    number = site.rso("exam", "create", "--facility", "NORTH", "--patient-name",
                      "CompressedSamples^CT1", "--json")["exam_number"]  # fmt: skip
    token = site.rso("token", "create", "--user", "tech@example.org", "--json")["token"]
    words = ["--url", f"http://127.0.0.1:{site.web}", "--token", token, "--json"]
    first = site.rso("send", number, str(folder), *words)
    assert (first["stored"], first["total"], len(first["skipped"])) == (60, 60, 1)
    wait_for(lambda: site.exams()[0]["status"] == "delivered")
    again = site.rso("send", number, str(folder), *words)
    assert (again["stored"], again["already"]) == (60, 60)
    assert site.exams()[0]["expected_instances"] == 60
    assert digests(pacs, files)
    # Another image under a name that is there already is not taken for it: kept too, and held.
    other = pydicom.dcmread(folder / "7.dcm")
    other.PixelData = bytes(len(other.PixelData))
    other.save_as(folder / "7.dcm")
    changed = site.rso("send", number, str(folder), *words)
    assert (changed["stored"], changed["already"]) == (60, 59)
    held = wait_for(site.holds)
    assert [(h["kind"], h["instances"]) for h in held] == [("instance", 1)]
    stranger = site.rso("token", "create", "--user", "south@example.org", "--json")["token"]
    words[3] = stranger
    refused = site.run("send", number, str(folder), *words)
    assert refused.returncode == 1
    assert "no exam has the number" in refused.stderr


def api(site: Site, email: str, path: str, body: dict[str, str] | None = None) -> tuple[int, Any]:
    """Status and JSON of a call with a person's token."""
    token = site.rso("token", "create", "--user", email, "--json")["token"]
    connection = http.client.HTTPConnection("127.0.0.1", site.web, timeout=20)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    method, data = ("POST", json.dumps(body)) if body is not None else ("GET", None)
    connection.request(method, path, data, headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text)


def test_two_people_release_and_one_recalls(
    site: Site, samples: Path, tmp_path: Path, pacs: Pacs
) -> None:
    """Name and birth date differ: the same person twice is one; recalled, sending stops."""
    who = {"PatientName": "ROE^RICHARD", "PatientBirthDate": "19800101"}
    number = site.rso("exam", "create", "--facility", "NORTH", "--patient-name", "DOE^JANE",
                      "--birth-date", "1970-01-31", "--json")["exam_number"]  # fmt: skip
    send(
        site, "NORTHCT", variant(samples / "CT_small.dcm", tmp_path / "1", PatientID=number, **who)
    )
    hold = wait_for(site.holds)[0]
    path = f"/api/holds/{hold['id']}"
    status, shown = api(site, "first@example.org", path)
    assert status == 200
    assert shown["evidence"]["explanation"]
    assert api(site, "south@example.org", path)[0] in {404, 409}
    ruling = {"exam": number, "reason": "the wrong patient was chosen at the modality"}
    assert api(site, "tech@example.org", f"{path}/release", ruling)[0] == 403
    for _ in range(2):
        assert api(site, "first@example.org", f"{path}/release", ruling)[0] == 202
    assert not pacs.received
    status, said = api(site, "second@example.org", f"{path}/release", ruling)
    assert (status, said["state"]) == (200, "released")
    wait_for(lambda: site.exams()[0]["status"] == "delivered")
    assert b"DOE^JANE" in next(iter(pacs.by_uid().values())).dataset
    status, said = api(site, "first@example.org", f"{path}/recall", {"reason": "it was not her"})
    assert (status, said["state"], said["sent"]) == (200, "recalled", 1)
    assert site.exams()[0]["instances"] == 0
    again = wait_for(site.holds)[0]
    assert again["reason"] == "recalled"
    assert (
        api(site, "first@example.org", f"/api/holds/{again['id']}/reject", {"reason": "x"})[0]
        == 200
    )
    assert not site.holds()
    assert site.run("audit", "verify").returncode == 0
