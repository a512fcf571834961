"""Who RSO is measured against, each started as shipped and with TCP_NODELAY where DCMTK has it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rso.testing.site import free_port

__all__ = ["NODELAY", "Orthanc", "PlainPynetdicom", "RawSink", "Storescp", "send", "wait_port"]

NODELAY = {**os.environ, "TCP_NODELAY": "1"}

_PYNETDICOM = """
import sys
from pynetdicom import AE, evt, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts
port, folder = int(sys.argv[1]), sys.argv[2]
def store(event):
    with open(f"{folder}/{event.request.AffectedSOPInstanceUID}", "wb") as file:
        file.write(event.encoded_dataset())
    return 0x0000
ae = AE("PLAIN")
for context in AllStoragePresentationContexts:
    ae.add_supported_context(context.abstract_syntax, ALL_TRANSFER_SYNTAXES)
ae.add_supported_context("1.2.840.10008.1.1")
ae.start_server(("127.0.0.1", port), evt_handlers=[(evt.EVT_C_STORE, store)])
"""

_RAW = """
import os, socket, struct, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
number = 0
while True:
    peer, _ = listener.accept()
    with peer:
        stream = peer.makefile("rb", 1 << 20)
        while head := stream.read(8):
            size = struct.unpack("<Q", head)[0]
            fd = os.open(f"{sys.argv[2]}/{number}", os.O_WRONLY | os.O_CREAT, 0o600)
            number += 1
            os.write(fd, stream.read(size))
            os.fsync(fd)
            os.close(fd)
            peer.sendall(b"+")
"""


def send(folders: Path | Sequence[Path], port: int, *, nodelay: bool = True) -> float:
    """Seconds that storescu takes to send a folder, or several at once, one association each."""
    many = [folders] if isinstance(folders, Path) else folders
    began = time.perf_counter()
    running = [
        subprocess.Popen(
            ["storescu", "-aet", "NORTHPACS", "-aec", "RSO", "+sd", "127.0.0.1", str(port), str(f)],
            env=NODELAY if nodelay else os.environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for f in many
    ]
    said = [process.communicate()[1].decode() for process in running]
    seconds = time.perf_counter() - began
    if any(process.returncode for process in running):
        raise SystemExit(f"storescu failed: {said}")
    return seconds


def wait_port(port: int) -> None:
    """Until somebody answers a C-ECHO there."""
    ask = ["echoscu", "-aet", "NORTHPACS", "-aec", "RSO", "127.0.0.1", str(port)]
    for _ in range(100):
        if subprocess.run(ask, check=False, capture_output=True).returncode == 0:
            return
        time.sleep(0.1)
    raise SystemExit("a peer did not start")


class _Peer:
    """A process with a folder."""

    port: int
    process: subprocess.Popen[bytes]
    folder: Path

    def _start(self, *command: str, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            command, env=NODELAY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def set_aside(self) -> None:
        """Begin with an empty folder, outside what is measured.

        Nothing is removed: ext4 steps over each file that was removed a moment ago when it makes
        one, which would be measured with whoever makes a file for each instance.
        """
        self.folder.rename(self.folder.with_name(f"{self.folder.name}-{time.monotonic_ns()}"))
        self.folder.mkdir()

    def clean(self) -> None:
        """Remove what it received, outside what is measured."""
        for file in self.folder.iterdir():
            if file.is_file():
                file.unlink()

    def stop(self) -> None:
        """End it."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


class Storescp(_Peer):
    """DCMTK's storescp, writing to a folder; it never syncs."""

    def __init__(self, folder: Path, *more: str) -> None:
        folder.mkdir()
        self.port = free_port()
        self._start("storescp", "+xa", "-od", str(folder), *more, str(self.port), folder=folder)
        wait_port(self.port)


class PlainPynetdicom(_Peer):
    """pynetdicom's own SCP with a handler that writes the encoded dataset."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.port = free_port()
        self._start(sys.executable, "-c", _PYNETDICOM, str(self.port), str(folder), folder=folder)
        wait_port(self.port)


class Orthanc(_Peer):
    """Orthanc, with or without per-instance routing to a PACS."""

    def __init__(self, folder: Path, pacs: int = 0, *, nodelay: bool = True) -> None:
        folder.mkdir()
        self.port = free_port()
        script = folder / "route.lua"
        script.write_text(
            "function OnStoredInstance(id, tags, metadata, origin)\n"
            "  Delete(SendToModality(id, 'pacs'))\nend\n"
        )
        config = {
            "Name": "bench",
            "StorageDirectory": str(folder / "db"),
            "IndexDirectory": str(folder / "db"),
            "DicomPort": self.port,
            "DicomAet": "RSO",
            "HttpServerEnabled": False,
            "DicomModalities": {"pacs": ["PACS", "127.0.0.1", pacs]} if pacs else {},
            "LuaScripts": [str(script)] if pacs else [],
            "OverwriteInstances": True,
        }
        (folder / "orthanc.json").write_text(json.dumps(config))
        program = shutil.which("Orthanc", path=os.environ["PATH"] + ":/usr/sbin") or "Orthanc"
        self.folder = folder / "received"
        self.folder.mkdir()
        self.process = subprocess.Popen(
            [program, str(folder / "orthanc.json")],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=NODELAY if nodelay else os.environ,
        )  # fmt: skip
        wait_port(self.port)


class RawSink(_Peer):
    """No DICOM at all: bytes from a socket into a file each, synced before one byte answers."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.port = free_port()
        self._start(sys.executable, "-c", _RAW, str(self.port), str(folder), folder=folder)
        time.sleep(0.5)

    def send(self, folder: Path) -> float:
        """Seconds to send a folder's files, one after the other."""
        began = time.perf_counter()
        with socket.create_connection(("127.0.0.1", self.port)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for file in sorted(folder.iterdir()):
                data = file.read_bytes()
                sock.sendall(len(data).to_bytes(8, "little") + data)
                sock.recv(1)
        return time.perf_counter() - began
