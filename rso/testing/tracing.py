"""System calls of a running process, seen and spoiled by strace: for tests of what is durable when.

with Trace(pid, log, ["pwritev", "fdatasync"], inject="fdatasync:signal=KILL:when=3"):
    …
"""

import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from msgspec import Struct

from rso.testing.fixtures import missing

__all__ = ["Call", "Trace", "calls_of", "mutant"]


class Call(Struct, frozen=True, kw_only=True):
    """One system call.

    Attributes:
        arguments: As strace writes them, descriptors with their paths or addresses.
        result: What it returned; -1 with an error, or when the process died in it.
        began: The place of its beginning in the trace; comparable between calls.
        ended: The place of its end.
    """

    thread: int
    name: str
    arguments: str
    result: int
    began: int
    ended: int


class Trace:
    """Attached to a process and all its threads, those to come too.

    Args:
        pid: The process.
        log: Where the trace goes.
        calls: The system calls to show.
        inject: What to do to one of them, in strace's words (``-e inject=``); counts are per
            thread.
    """

    def __init__(self, pid: int, log: Path, calls: Sequence[str], *, inject: str = "") -> None:
        self._pid, self._log = pid, log
        self._command = [
            "strace", "-f", "-q", "-yy", "-s", "32", "-o", str(log),
            "-e", f"trace={','.join(calls)}", "-p", str(pid),
            *(["-e", f"inject={inject}"] if inject else []),
        ]  # fmt: skip

    def __enter__(self) -> "Trace":
        try:
            self._strace = subprocess.Popen(
                self._command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
        except FileNotFoundError:
            missing("strace")
        until = time.monotonic() + 10
        while not self._is_attached():
            if self._strace.poll() is not None or time.monotonic() > until:
                assert self._strace.stderr is not None
                raise RuntimeError(f"strace: {self._strace.stderr.read()}")
            time.sleep(0.02)
        return self

    def _is_attached(self) -> bool:
        try:
            for status in Path(f"/proc/{self._pid}/task").glob("*/status"):
                if "TracerPid:\t0\n" in status.read_text():
                    return False
        except (FileNotFoundError, ProcessLookupError):
            return False
        return True

    def _is_dying(self) -> bool:
        """Killed, and perhaps not reaped yet."""
        try:
            return "State:\tZ" in Path(f"/proc/{self._pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A process that is dying is left to strace: to detach from it now can block for ever.
        until = time.monotonic() + (5.0 if self._is_dying() else 0.0)
        while self._strace.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        self._strace.terminate()
        try:
            self._strace.wait(3)
        except subprocess.TimeoutExpired:
            self._strace.kill()
            self._strace.wait()
        assert self._strace.stderr is not None
        self._strace.stderr.close()

    def calls(self) -> list[Call]:
        """What was seen so far, in the order in which the calls began."""
        return calls_of(self._log.read_text())


_BEGUN = re.compile(r"^(\d+) +(\w+)\((.*)$")
_RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)$")
_RESULT = re.compile(r"^(.*)\) += (-?\d+|\?)")


def calls_of(trace: str) -> list[Call]:
    """The calls of a trace; one that two lines tell of counts from the first to the second."""
    open_: dict[int, tuple[str, str, int]] = {}
    calls: list[Call] = []

    def add(thread: int, name: str, text: str, began: int, ended: int) -> None:
        found = _RESULT.match(text)
        if found is not None:
            result = -1 if found[2] == "?" else int(found[2])
            calls.append(
                Call(thread=thread, name=name, arguments=found[1], result=result, began=began,
                     ended=ended)
            )  # fmt: skip

    for place, line in enumerate(trace.splitlines()):
        if begun := _BEGUN.match(line):
            thread, name, rest = int(begun[1]), begun[2], begun[3]
            if rest.endswith("<unfinished ...>"):
                open_[thread] = name, rest.removesuffix("<unfinished ...>"), place
            else:
                add(thread, name, rest, place, place)
        elif resumed := _RESUMED.match(line):
            name, start, began = open_.pop(int(resumed[1]), ("", "", 0))
            if name:
                add(int(resumed[1]), name, start + resumed[3], began, place)
    return sorted(calls, key=lambda call: call.began)


def mutant(folder: Path, code: str) -> dict[str, str]:
    """An environment in which every Python process runs ``code`` first: a defect for one test."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": str(folder)}
