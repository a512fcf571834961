"""The first thing a newcomer runs, ended in the middle."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from rso.testing.site import wait_for


def test_a_stopped_demo_leaves_nothing(tmp_path: Path) -> None:
    """SIGTERM, as from a closed job, ends RSO too and removes the demo's data."""
    process = subprocess.Popen(
        [sys.executable, "-m", "rso", "demo"],
        stdout=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    while "exam requested" not in (line := process.stdout.readline()):
        assert line, "the demo ended by itself"

    def running() -> list[str]:
        found = subprocess.run(
            ["pgrep", "-f", f"rso.* {tmp_path}/"], check=False, capture_output=True, text=True
        )
        return found.stdout.split()

    assert running()
    process.send_signal(signal.SIGTERM)
    process.stdout.read()
    assert process.wait(60) == 0
    process.stdout.close()
    assert not list(tmp_path.iterdir())
    wait_for(lambda: not running(), 10)
