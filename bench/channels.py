"""HTTP and FTPS against C-STORE, Orthanc's POST /instances and pyftpdlib alone, in one run.

Prints ratios of medians. RSO syncs each instance before it answers; Orthanc and pyftpdlib as
they are shipped. Only the receiving roles run.
"""

import argparse
import http.client
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pydicom
from receive import make_set, storescu, wait_port

from rso.testing.pacs import Pacs
from rso.testing.site import Site, free_port

_FTPD = """
import sys
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import TLS_FTPHandler
from pyftpdlib.servers import ThreadedFTPServer
port, folder, certificate, key = sys.argv[1:]
class Handler(TLS_FTPHandler):
    authorizer = DummyAuthorizer()
    certfile, keyfile = certificate, key
    tls_control_required = tls_data_required = True
Handler.authorizer.add_user("north", "north's password", folder, perm="elradfmwMT")
import logging
logging.disable(logging.CRITICAL)
ThreadedFTPServer(("127.0.0.1", int(port)), Handler).serve_forever()
"""


_RATIOS = (
    ("HTTP / C-STORE", "RSO HTTP (STOW-RS)", "RSO C-STORE (storescu)"),
    ("HTTP / Orthanc", "RSO HTTP (STOW-RS)", "Orthanc POST /instances"),
    ("FTPS / pyftpdlib alone", "RSO FTPS (lftp)", "pyftpdlib FTPS (lftp)"),
)


def bodies(folder: Path) -> list[Path]:
    """The folder as STOW-RS bodies of 50 instances each, beside it."""
    files = sorted(folder.iterdir())
    made = []
    for start in range(0, len(files), 50):
        body = folder.parent / f"{folder.name}-{start}.body"
        with body.open("wb") as out:
            for file in files[start : start + 50]:
                out.write(b"--X\r\nContent-Type: application/dicom\r\n\r\n")
                out.write(file.read_bytes() + b"\r\n")
            out.write(b"--X--\r\n")
        made.append(body)
    return made


def stow(site: Site, folder: Path, token: str) -> float:
    """Seconds that curl takes to send a folder by STOW-RS over one connection."""
    made = bodies(folder)
    command = ["curl", "-sS", "--fail", "-o", "/dev/null"]
    for index, body in enumerate(made):
        command += [
            *(["--next", "-sS", "--fail", "-o", "/dev/null"] if index else []),
            "-H", f"Authorization: Bearer {token}", "-H", "Expect:", "-H",
            'Content-Type: multipart/related; type="application/dicom"; boundary=X',
            "-X",
            "POST",
            "-T", str(body), f"http://127.0.0.1:{site.web}/dicomweb/studies",
        ]  # fmt: skip
    began = time.perf_counter()
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - began
    for body in made:
        body.unlink()
    return seconds


def orthanc_post(port: int, folder: Path) -> float:
    """Seconds to POST each file of a folder over one connection."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    for file in sorted(folder.iterdir()):
        connection.request("POST", "/instances", file.read_bytes())
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise SystemExit(f"Orthanc answered {answer.status}")
    connection.close()
    return time.perf_counter() - began


def mirror(port: int, folder: Path, name: str) -> float:
    """Seconds of lftp's mirror over one connection."""
    script = (
        "set ssl:verify-certificate no; set ftp:ssl-force yes; set net:max-retries 2;"
        f' open -u north,"north\'s password" 127.0.0.1:{port}; mirror -R {folder} {name}'
    )
    began = time.perf_counter()
    subprocess.run(["lftp", "-c", script], check=True, capture_output=True)
    return time.perf_counter() - began


class Orthanc:
    """With its HTTP server only."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.port, dicom = free_port(), free_port()
        config = {
            "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"),
            "DicomPort": dicom, "HttpPort": self.port, "AuthenticationEnabled": False,
            "OverwriteInstances": True,
        }  # fmt: skip
        (folder / "orthanc.json").write_text(json.dumps(config))
        program = shutil.which("Orthanc", path=os.environ["PATH"] + ":/usr/sbin") or "Orthanc"
        self.process = subprocess.Popen(
            [program, str(folder / "orthanc.json")],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "TCP_NODELAY": "1"},
        )  # fmt: skip
        wait_port(dicom)

    def stop(self) -> None:
        """End it."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def rss(site: Site, role: str) -> int:
    """Resident bytes of a role's process."""
    found = subprocess.run(
        ["pgrep", "-f", f"rso.roles {role} 0 {site.config}"], capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    status = Path(f"/proc/{found.stdout.split()[0]}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Run everything and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--count", type=int, default=600)
    arguments = parser.parse_args()
    sample = Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"
    folder = Path(tempfile.mkdtemp(prefix="rso-bench-"))
    pacs = Pacs()
    pacs.start()
    site = Site(folder, pacs.port)
    site.start("receive,web")
    orthanc = Orthanc(folder / "orthanc")
    plain = folder / "ftp"
    plain.mkdir()
    port = free_port()
    own = site.folder / "site" / "data" / "receivers" / "ftp"
    ftpd = subprocess.Popen(
        [sys.executable, "-c", _FTPD, str(port), str(plain), str(own / "certificate.pem"),
         str(own / "key.pem")]
    )  # fmt: skip
    token = site.rso("token", "create", "--user", "tech@example.org", "--json")["token"]
    only = arguments.only.split(",") if arguments.only else []
    ways: dict[str, Callable[[Path, int], float]] = {
        "RSO C-STORE (storescu)": lambda f, _: storescu(f, site.dicom),
        "RSO HTTP (STOW-RS)": lambda f, _: stow(site, f, token),
        "Orthanc POST /instances": lambda f, _: orthanc_post(orthanc.port, f),
        "RSO FTPS (lftp)": lambda f, n: mirror(site.ftp, f, f"r{n}"),
        "pyftpdlib FTPS (lftp)": lambda f, n: mirror(port, f, f"r{n}"),
    }
    ways = {n: w for n, w in ways.items() if not only or any(o in n for o in only)}
    times: dict[str, list[float]] = {name: [] for name in ways}
    try:
        for turn in range(arguments.rounds):
            files = make_set(folder / f"set{turn}", arguments.count, 512 * 1024, sample)
            for name, way in ways.items():
                times[name].append(way(files, turn))
            shutil.rmtree(files)
        median = {name: statistics.median(found) for name, found in times.items()}
        for name, seconds in median.items():
            print(f"{name:28} {arguments.count / seconds:8.0f} instances/s")
        for label, mine, other in _RATIOS:
            if mine in median and other in median:
                print(f"{label:28} x{median[other] / median[mine]:.2f}")
        for role in ("receive", "web"):
            print(f"most memory of {role:8} {rss(site, role) >> 20} MB")
    finally:
        ftpd.kill()
        ftpd.wait()
        orthanc.stop()
        site.stop()
        pacs.stop()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
