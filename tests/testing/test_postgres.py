"""The PostgreSQL of tests."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rso.testing.fixtures import missing
from rso.testing.postgres import find_postgres, running_postgres
from rso.testing.site import wait_for

RUN = """
import sys, time
from pathlib import Path
from rso.testing.postgres import running_postgres
with running_postgres(Path(sys.argv[1])) as url:
    print(url, flush=True)
    time.sleep(100)
"""


def processes_of(folder: Path) -> list[str]:
    """What runs with this folder in its command."""
    done = subprocess.run(["pgrep", "-f", str(folder)], check=False, capture_output=True, text=True)
    return done.stdout.split()


def test_it_ends_with_a_run_that_is_killed() -> None:
    """SIGKILL of who began it: its processes end, and its folder goes."""
    binaries = find_postgres() or missing("PostgreSQL")
    run = subprocess.Popen(
        [sys.executable, "-c", RUN, binaries], stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    try:
        assert run.stdout is not None
        folder = Path(run.stdout.readline().strip().partition("host=")[2])
        assert (folder / "data" / "postmaster.pid").exists()
        assert processes_of(folder)
    finally:
        run.send_signal(signal.SIGKILL)
        run.communicate()
    wait_for(lambda: not processes_of(folder))
    wait_for(lambda: not folder.exists())


def test_a_start_that_fails_says_why(tmp_path: Path) -> None:
    """Not waited for; the log is in the error."""
    (tmp_path / "initdb").write_text("#!/bin/sh\necho no room for a cluster >&2; exit 1\n")
    for name, text in (("postgres", "exit 1"), ("pg_isready", "exit 2")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
    for file in (tmp_path, *tmp_path.iterdir()):
        file.chmod(0o755)
    with (
        pytest.raises(OSError, match=r"did not start: .*(no room for a cluster|denied)"),
        running_postgres(tmp_path),
    ):
        raise AssertionError("it ran")
