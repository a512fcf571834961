"""The command line in processes that begin with the program loaded, for tests that run many.

``Commands.run`` does what ``python -m rso …`` does, in a process of its own with its own
environment, output and exit code; only the imports are done once. It works as follows: one process
imports the program, waits, and forks for each command.
"""

import atexit
import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import NoReturn

__all__ = ["Commands"]

_MOST_REQUEST = 1 << 20  # bytes of arguments and environment


class Commands:
    """A process that has the program loaded, started at the first command."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = ""

    def _address(self) -> str:
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()
            return f"{self._folder}/commands"

    def _start(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="rso-")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rso.testing.commands", f"{self._folder}/commands"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        atexit.register(self._stop, self._process, self._folder)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n", "the command line cannot be loaded"

    @staticmethod
    def _stop(process: subprocess.Popen[bytes], folder: str) -> None:
        process.communicate()  # it ends with its standard input
        with contextlib.suppress(OSError):
            Path(folder, "commands").unlink(missing_ok=True)
            Path(folder).rmdir()

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run ``rso`` with these arguments, in the current folder."""
        request = {
            "arguments": arguments,
            "environment": dict(environment),
            "folder": str(Path.cwd()),
        }
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock,
            tempfile.TemporaryFile("w+") as stdout,
            tempfile.TemporaryFile("w+") as stderr,
        ):
            sock.connect(self._address())
            socket.send_fds(
                sock, [json.dumps(request).encode()], [stdout.fileno(), stderr.fileno()]
            )
            answer = sock.recv(64)
            for stream in (stdout, stderr):
                stream.seek(0)
            code = int(answer) if answer else -1  # it died without a word
            return subprocess.CompletedProcess(
                ["rso", *arguments], code, stdout.read(), stderr.read()
            )


def _run(request: bytes, descriptors: Sequence[int]) -> int:
    """In a process of its own: one command, as ``python -m rso`` runs it."""
    from rso.cli import main  # noqa: PLC0415

    said = json.loads(request)
    for target, descriptor in zip((1, 2), descriptors, strict=True):
        os.dup2(descriptor, target)
        os.close(descriptor)
    with open(os.devnull) as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
    os.environ.clear()
    os.environ.update(said["environment"])
    os.chdir(said["folder"])
    sys.argv = ["rso", *said["arguments"]]
    try:
        main()
    except SystemExit as exc:
        if exc.code is not None and not isinstance(exc.code, int):
            sys.stderr.write(f"{exc.code}\n")
            return 1
        return exc.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _serve_one(connection: socket.socket) -> NoReturn:
    code = 1
    try:
        request, descriptors, _, _ = socket.recv_fds(connection, _MOST_REQUEST, 2)
        code = _run(request, descriptors)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.send(str(code).encode())
        os._exit(code)


def _serve(address: str) -> None:
    """Load the program, and fork for each command until standard input closes."""
    import rso.cli  # noqa: PLC0415
    import rso.engine.check  # noqa: PLC0415
    import rso.engine.dispatch  # noqa: PLC0415
    import rso.engine.exams  # noqa: PLC0415
    import rso.engine.holds  # noqa: PLC0415
    import rso.ledger.site  # noqa: F401, PLC0415

    for plugin in entry_points(group="rso"):
        plugin.load()
    gc.freeze()  # what is shared with every command stays shared
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them here
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening,
        selectors.DefaultSelector() as selector,
    ):
        listening.bind(address)
        listening.listen(64)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        selector.register(listening, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            if any(key.fileobj is sys.stdin for key, _ in selector.select()):
                return
            connection, _ = listening.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listening.close()
                _serve_one(connection)
            connection.close()


if __name__ == "__main__":
    _serve(sys.argv[1])
