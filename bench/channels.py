"""HTTP and FTPS against C-STORE, Orthanc's POST /instances and pyftpdlib alone, in one run.

Prints ratios of medians. RSO syncs each instance before it answers; Orthanc and pyftpdlib as
they are shipped. Only the receiving roles run.
"""

import argparse
import http.client
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from peers import send, wait_port
from receive import receiving
from rows import Row, alternate, speed
from sets import SETS, make_large, make_set

from rso.testing.site import Site, free_port

__all__ = ["measure"]

_BOUNDARY = b"a-boundary-as-long-as-clients-make-them"
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


def bodies(folder: Path) -> list[Path]:
    """The folder as STOW-RS bodies of 50 instances each, beside it."""
    files = sorted(folder.iterdir())
    made = []
    for start in range(0, len(files), 50):
        body = folder.parent / f"{folder.name}-{start}.body"
        with body.open("wb") as out:
            for file in files[start : start + 50]:
                out.write(b"--" + _BOUNDARY + b"\r\nContent-Type: application/dicom\r\n\r\n")
                out.write(file.read_bytes() + b"\r\n")
            out.write(b"--" + _BOUNDARY + b"--\r\n")
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
            'Content-Type: multipart/related; type="application/dicom"; boundary='
            + _BOUNDARY.decode(),
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


def measure(runs: int = 5, scale: float = 1.0) -> list[Row]:
    """Every row about channels, and the most memory that the receiving processes had."""
    folder = Path(tempfile.mkdtemp(prefix="rso-bench-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        rso = stack.enter_context(receiving(roles="receive,web"))
        site = rso.site
        orthanc = Orthanc(folder / "orthanc")
        stack.callback(orthanc.stop)
        plain = folder / "ftp"
        plain.mkdir()
        port = free_port()
        own = site.folder / "site" / "data" / "receivers" / "ftp"
        ftpd = subprocess.Popen(
            [sys.executable, "-c", _FTPD, str(port), str(plain), str(own / "certificate.pem"),
             str(own / "key.pem")]
        )  # fmt: skip
        stack.callback(ftpd.wait)
        stack.callback(ftpd.kill)
        token = site.rso("token", "create", "--user", "tech@example.org", "--json")["token"]
        count = max(int(SETS["CT"][0] * scale), 20)
        files = make_set(folder / "CT", "CT", count)
        turn = itertools.count()
        found = alternate(
            runs,
            {
                "C-STORE": lambda: send(files, site.dicom),
                "STOW-RS": lambda: stow(site, files, token),
                "Orthanc POST": lambda: orthanc_post(orthanc.port, files),
                "FTPS": lambda: mirror(site.ftp, files, f"r{next(turn)}"),
                "pyftpdlib": lambda: mirror(port, files, f"r{next(turn)}"),
            },
            [rso.clean],
        )
        rows = [
            speed("CT by HTTP against C-STORE", 1, found, "STOW-RS", "C-STORE", count),
            speed("CT by HTTP, Orthanc's POST", 3, found, "STOW-RS", "Orthanc POST", count),
            speed("CT by FTPS, pyftpdlib alone", 1 / 1.5, found, "FTPS", "pyftpdlib", count),
        ]
        shutil.rmtree(files)
        large = make_large(folder / "large", (int(2048 * scale) or 1) << 20)
        for what, role, work in (
            ("C-STORE", "receive", lambda: send(large, site.dicom)),
            ("HTTP", "web", lambda: stow(site, large, token)),
        ):
            before = rss(site, role)
            work()
            rso.clean()
            rows.append(
                Row(what=f"one instance of 2 GB by {what}, MB of memory", goal=64, at_most=True,
                    ratio=(rss(site, role) - before) / (1 << 20),
                    detail="growth of the process' peak").show()
            )  # fmt: skip
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="a part of each set")
    options = parser.parse_args()
    measure(options.runs, options.scale)
