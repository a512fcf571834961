"""Every way in, with the clients that people use: one exam, nothing lost, nothing twice."""

import base64
import contextlib
import ftplib
import http.client
import io
import os
import random
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pydicom
import pytest
import requests

from rso.dicom.part10 import read_file_meta
from rso.testing.modality import send_files
from rso.testing.pacs import Pacs
from rso.testing.site import Site, wait_for
from rso.testing.study import delivered, make_study, missing

PASSWORD = "north's password"


def mirror(peer: Callable[[str], str], site: Site, folder: Path, *options: str) -> list[str]:
    """The command of an FTPS mirror."""
    script = (
        "set ssl:verify-certificate no; set ftp:ssl-force yes; set net:max-retries 5;"
        " set net:reconnect-interval-base 1; set net:timeout 20;"
        f' open -u north,"{PASSWORD}" 127.0.0.1:{site.ftp};'
        f" mirror -R -c --parallel=3 {' '.join(options)} {folder} up"
    )
    return [peer("lftp"), "-c", script]


def upload(site: Site, token: str, number: str, *paths: Path) -> list[str]:
    """The command of an HTTP upload."""
    return [
        sys.executable, "-m", "rso", "send", number, *map(str, paths), "--json",
        "--url", f"http://127.0.0.1:{site.web}", "--token", token,
    ]  # fmt: skip


def run(command: list[str]) -> None:
    """Run a client that has to succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.fixture
def exam(site: Site, samples: Path) -> str:
    """The number of an exam whose patient is that of the sample slice."""
    name = str(pydicom.dcmread(samples / "CT_small.dcm").PatientName)
    made = site.rso("exam", "create", "--facility", "NORTH", "--patient-name", name, "--json")
    return str(made["exam_number"])


@pytest.fixture
def token(site: Site) -> str:
    """A technician's API token."""
    return str(site.rso("token", "create", "--user", "tech@example.org", "--json")["token"])


def test_one_study_over_three_channels_at_once(
    site: Site, samples: Path, tmp_path: Path, pacs: Pacs, exam: str, token: str,
    peer: Callable[[str], str],
) -> None:  # fmt: skip
    """Overlapping parts by FTPS, HTTP and C-STORE become one exam, each instance once."""
    files = make_study(samples / "CT_small.dcm", tmp_path / "study", 500, PatientID=exam)
    with ThreadPoolExecutor() as pool:
        jobs = [
            pool.submit(run, mirror(peer, site, tmp_path / "study", "-x", "^S2/")),
            pool.submit(run, upload(site, token, exam, *(tmp_path / "study").glob("S[12]"))),
            pool.submit(
                send_files, files[::2], host="127.0.0.1", port=site.dicom,
                calling_ae_title="NORTHCT", called_ae_title="RSO",
            ),
        ]  # fmt: skip
        for job in jobs:
            job.result()
    shown = delivered(site, exam, 500)
    assert len({study["study_instance_uid"] for study in shown["studies"]}) == 1
    assert not site.holds()
    assert missing(pacs, files) == 0


@pytest.mark.parametrize("channel", ["ftp", "http_upload"])
def test_kill_in_the_middle_of_an_upload(
    site: Site, samples: Path, tmp_path: Path, pacs: Pacs, exam: str, token: str,
    peer: Callable[[str], str], channel: str,
) -> None:  # fmt: skip
    """Kill -9 of the receiving process: its client resumes, nothing is lost or stored twice."""
    files = make_study(samples / "CT_small.dcm", tmp_path / "study", 300, PatientID=exam)
    role = "receive" if channel == "ftp" else "web"
    command = upload(site, token, exam, tmp_path / "study")
    if channel == "ftp":
        command = mirror(peer, site, tmp_path / "study")
    with ThreadPoolExecutor() as pool:
        job = pool.submit(run, command)
        for _ in range(2):
            time.sleep(random.Random(channel).uniform(0.8, 1.4))
            site.kill(role)
        job.result()
    delivered(site, exam, 300)
    assert missing(pacs, files) == 0
    ledger = site.rso("exam", "show", exam, "--json")
    assert ledger["instances"] == 300


def test_clients_of_every_kind(
    site: Site, samples: Path, tmp_path: Path, pacs: Pacs, exam: str, token: str,
    peer: Callable[[str], str],
) -> None:  # fmt: skip
    """Curl by FTPS and by STOW-RS, Python's ftplib in active mode, and a ZIP by `rso send`."""
    files = make_study(samples / "CT_small.dcm", tmp_path / "study", 8, PatientID=exam)
    curl = peer("curl")
    run([curl, "-sS", "--fail", "--ssl-reqd", "-k", "--ftp-create-dirs", "-T", str(files[0]),
         "-u", f"north:{PASSWORD}", f"ftp://127.0.0.1:{site.ftp}/a/b/one.dcm"])  # fmt: skip
    body = tmp_path / "body"
    body.write_bytes(
        b"--X\r\nContent-Type: application/dicom\r\n\r\n" + files[1].read_bytes() + b"\r\n--X--\r\n"
    )
    run([curl, "-sS", "--fail", "-u", f"north-gateway:{PASSWORD}", "-H",
         'Content-Type: multipart/related; type="application/dicom"; boundary=X',
         "--data-binary", f"@{body}", f"http://127.0.0.1:{site.web}/api/exams/{exam}/studies"])  # fmt: skip
    ftp = ftplib.FTP_TLS(timeout=20)
    ftp.connect("127.0.0.1", site.ftp)
    ftp.login("north", PASSWORD)
    ftp.prot_p()
    ftp.set_pasv(False)
    with files[2].open("rb") as stream:
        assert ftp.storbinary("STOR active.dcm", stream) == "226 Kept."
    ftp.quit()
    packed = tmp_path / "cd.zip"
    run([sys.executable, "-m", "zipfile", "-c", str(packed), *map(str, files[3:6])])
    run(upload(site, token, exam, packed))
    with packed.open("rb") as stream:
        status = stow(site, token, "application/zip", stream.read())
    assert status == 200
    send_files(files[6:], host="127.0.0.1", port=site.dicom, calling_ae_title="NORTHCT",
               called_ae_title="RSO")  # fmt: skip
    delivered(site, exam, 8)
    assert missing(pacs, files) == 0
    # What came in can be had again: every dataset as it was, without where it came from.
    taken = tmp_path / "taken.zip"
    run([curl, "-sS", "--fail", "-o", str(taken), "-H", f"Authorization: Bearer {token}",
         f"http://127.0.0.1:{site.web}/exams/{exam}/images.zip"])  # fmt: skip
    with zipfile.ZipFile(taken) as archive:
        assert archive.testzip() is None
        got = [archive.read(name) for name in archive.namelist()]
    datasets = {data[read_file_meta(data).dataset_offset :] for data in got}
    sent = [file.read_bytes() for file in files]
    assert datasets == {data[read_file_meta(data).dataset_offset :] for data in sent}
    assert b"tech@example.org" not in b"".join(got)


def test_a_sources_token(
    site: Site, samples: Path, tmp_path: Path, pacs: Pacs, exam: str, peer: Callable[[str], str]
) -> None:
    """An administrator makes it; curl and `rso send` upload with it; revoked, it is nobody's."""
    base = f"http://127.0.0.1:{site.web}"
    boss = requests.Session()
    shown = boss.post(f"{base}/sign-in", site.admin, timeout=20).text
    csrf = {"_csrf": shown.partition('data-csrf="')[2].partition('"')[0]}
    shown = boss.post(f"{base}/admin/tokens", csrf | {"source": "north-gateway"}, timeout=20).text
    token, key = re.search(r"rso_[\w-]+", shown), re.search(r'name="revoke" value="([^"]+)"', shown)
    assert token is not None
    assert key is not None
    files = make_study(samples / "CT_small.dcm", tmp_path / "study", 4, PatientID=exam)
    body = tmp_path / "body"
    body.write_bytes(
        b"--X\r\nContent-Type: application/dicom\r\n\r\n" + files[0].read_bytes() + b"\r\n--X--\r\n"
    )
    command = [peer("curl"), "-sS", "-o", str(tmp_path / "answer"), "-w", "%{http_code}", "-H",
               f"Authorization: Bearer {token[0]}", "-H",
               'Content-Type: multipart/related; type="application/dicom"; boundary=X',
               "--data-binary", f"@{body}", f"{base}/api/exams/{exam}/studies"]  # fmt: skip
    asked: Any = {"capture_output": True, "text": True, "timeout": 60}
    assert subprocess.run(command, check=True, **asked).stdout == "200"
    run(upload(site, token[0], exam, *files[1:]))
    delivered(site, exam, 4)
    assert missing(pacs, files) == 0
    boss.post(f"{base}/admin/tokens", csrf | {"revoke": key[1]}, timeout=20)
    assert subprocess.run(command, check=True, **asked).stdout == "401"


def stow(site: Site, token: str, kind: str, body: bytes) -> int:
    """The status of a STOW-RS request."""
    connection = http.client.HTTPConnection("127.0.0.1", site.web, timeout=60)
    with contextlib.closing(connection):
        connection.request(
            "POST", "/dicomweb/studies", body,
            {"Content-Type": kind, "Authorization": f"Bearer {token}"},
        )  # fmt: skip
        return connection.getresponse().status


def test_a_large_instance_goes_in_pieces(
    site: Site, samples: Path, tmp_path: Path, pacs: Pacs, exam: str, token: str,
    peer: Callable[[str], str],
) -> None:  # fmt: skip
    """150 MB by HTTP with the web process killed on the way, and by FTP with a cut line."""
    big = tmp_path / "big"
    files = make_study(samples / "CT_small.dcm", big, 2, PatientID=exam)
    for file in files:
        dataset = pydicom.dcmread(file)
        dataset.Rows, dataset.Columns, dataset.NumberOfFrames = 1024, 1024, 75
        dataset.PixelData = os.urandom(1 << 20) * 150
        dataset.save_as(file)
    with ThreadPoolExecutor() as pool:
        job = pool.submit(run, upload(site, token, exam, files[0]))
        time.sleep(1.5)
        site.kill("web")
        job.result()
    data = files[1].read_bytes()
    size = cut_off(site, data)
    assert 0 < size < len(data)
    run([peer("lftp"), "-c",
         "set ssl:verify-certificate no; set ftp:ssl-force yes;"
         f" open -u north,\"{PASSWORD}\" 127.0.0.1:{site.ftp}; put -c {files[1]} -o big.dcm"])  # fmt: skip
    delivered(site, exam, 2)
    assert missing(pacs, files) == 0


def cut_off(site: Site, data: bytes) -> int:
    """Lose the line half way; how much the server has then."""
    ftp = ftplib.FTP_TLS(timeout=20)
    ftp.connect("127.0.0.1", site.ftp)
    ftp.login("north", PASSWORD)
    ftp.prot_p()
    ftp.voidcmd("TYPE I")
    channel = ftp.transfercmd("STOR big.dcm")
    channel.sendall(data[: len(data) // 2])
    ftp.close()
    channel.close()
    again = ftplib.FTP_TLS(timeout=20)
    again.connect("127.0.0.1", site.ftp)
    again.login("north", PASSWORD)
    again.voidcmd("TYPE I")

    def size() -> int | None:
        try:
            return again.size("big.dcm")
        except ftplib.error_perm:
            return None

    found: int = wait_for(size)
    again.close()
    return found


@pytest.fixture
def small_disk(tmp_path: Path, pacs: Pacs) -> Iterator[Site]:
    """A running RSO on a volume of 160 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a tmpfs")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", folder], check=True)
    try:
        made = Site(folder, pacs.port)
        made.start()
        yield made
        made.stop()
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_refuses_in_each_channels_terms(
    small_disk: Site, samples: Path, tmp_path: Path, pacs: Pacs
) -> None:
    """A700, 507 and 452; nothing partial under a final name; going again when space returns."""
    site = small_disk
    token = site.rso("token", "create", "--user", "tech@example.org", "--json")["token"]
    name = str(pydicom.dcmread(samples / "CT_small.dcm").PatientName)
    number = site.rso("exam", "create", "--facility", "NORTH", "--patient-name", name, "--json")[
        "exam_number"
    ]
    files = make_study(samples / "CT_small.dcm", tmp_path / "study", 3, PatientID=number)
    before = {p for p in (site.folder / "site" / "data").rglob("*") if p.is_file()}
    filler = site.folder / "filler"
    free = os.statvfs(site.folder)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - (8 << 20))

    def by_dicom() -> int:
        answers = send_files(files[:1], host="127.0.0.1", port=site.dicom,
                             calling_ae_title="NORTHCT", called_ae_title="RSO")  # fmt: skip
        return next(iter(answers.values()))

    def by_http() -> int:
        body = b"--X\r\nContent-Type: application/dicom\r\n\r\n" + files[1].read_bytes()
        kind = 'multipart/related; type="application/dicom"; boundary=X'
        return stow(site, token, kind, body + b"\r\n--X--\r\n")

    def by_ftp() -> str:
        ftp = ftplib.FTP_TLS(timeout=20)
        ftp.connect("127.0.0.1", site.ftp)
        ftp.login("north", PASSWORD)
        ftp.prot_p()
        try:
            return ftp.storbinary("STOR a.dcm", io.BytesIO(files[2].read_bytes()))[:3]
        except ftplib.error_temp as exc:
            return str(exc)[:3]
        finally:
            ftp.close()

    assert (by_dicom(), by_http(), by_ftp()) == (0xA700, 507, "452")
    now = {p for p in (site.folder / "site" / "data").rglob("*") if p.is_file()}
    assert not [p for p in now - before if p.suffix in {".dcm", ".part"}]
    filler.unlink()
    assert (by_dicom(), by_http(), by_ftp()) == (0, 200, "226")
    delivered(site, number, 3)
    assert missing(pacs, files) == 0


def test_facilities_are_worlds_apart(
    site: Site, samples: Path, tmp_path: Path, exam: str, peer: Callable[[str], str]
) -> None:
    """Another facility's account reaches neither the exam by its number nor its uploads."""
    files = make_study(samples / "CT_small.dcm", tmp_path / "study", 1, PatientID=exam)
    with ftplib.FTP_TLS(timeout=20) as ftp:
        ftp.connect("127.0.0.1", site.ftp)
        ftp.login("south", "south's password")
        ftp.prot_p()
        with files[0].open("rb") as stream:
            ftp.storbinary("STOR a.dcm", stream)
    hold = wait_for(site.holds)[0]
    assert hold["facility"] == "SOUTH"
    assert site.rso("exam", "show", exam, "--json")["instances"] == 0
    south = site.rso("token", "create", "--user", "south@example.org", "--json")["token"]
    done = subprocess.run(upload(site, south, exam, files[0]), capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 1
    assert "no exam" in done.stderr
    secret = base64.b64encode(f"north-gateway:{PASSWORD}".encode()).decode()
    connection = http.client.HTTPConnection("127.0.0.1", site.web, timeout=20)
    with contextlib.closing(connection):
        connection.request("POST", "/dicomweb/studies?facility=SOUTH", b"",
                           {"Authorization": f"Basic {secret}"})  # fmt: skip
        assert connection.getresponse().status == 403


def test_slow_clients_do_not_hold_up_others(site: Site, samples: Path) -> None:
    """Dozens of silent FTP connections: the next technician gets in at once."""
    import socket  # noqa: PLC0415

    silent = []
    for _ in range(45):
        sock = socket.create_connection(("127.0.0.1", site.ftp), timeout=10)
        silent.append(sock)
    began = time.monotonic()
    with ftplib.FTP_TLS(timeout=20) as ftp:
        ftp.connect("127.0.0.1", site.ftp)
        ftp.login("north", PASSWORD)
        ftp.prot_p()
        stored = ftp.storbinary("STOR a.dcm", io.BytesIO((samples / "CT_small.dcm").read_bytes()))
    assert stored == "226 Kept."
    assert time.monotonic() - began < 10
    for sock in silent:
        sock.close()
