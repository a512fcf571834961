"""What a command loads before it does anything."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from argon2 import PasswordHasher, extract_parameters
from cyclopts import App

from rso.cli.main import app
from rso.core import password
from rso.testing.site import Site, free_port

# Each takes a tenth of a second or more to import, and only servers and few commands need it.
HEAVY = ("apprise", "litestar", "numpy", "pydicom", "pynetdicom", "reportlab", "requests")
LIST = """
import sys
from rso.cli import main
sys.argv = ["rso", "exam", "list", "--json"]
try:
    main()
finally:
    print([name for name in sys.modules if name in {heavy}], file=sys.stderr)
"""


def test_a_command_loads_what_it_needs(tmp_path: Path) -> None:
    """Listing exams, with every plugin of a new site, loads nothing that only a server needs."""
    site = Site(tmp_path, free_port())
    done = subprocess.run(
        [sys.executable, "-c", LIST.format(heavy=set(HEAVY))], capture_output=True, text=True,
        check=True, env={"RSO_CONFIG": str(site.config)},
    )  # fmt: skip
    assert done.stdout.split() == ["{", '"exams":', "[]", "}"]
    assert done.stderr.strip() == "[]"


def commands(group: App) -> Iterator[tuple[str, App]]:
    """Every command below, with its name in full."""
    for name in group:
        if not name.startswith("-"):
            found = group[name]
            if found.default_command is not None:
                yield f"{group.name[0]} {name}", found
            yield from commands(found)


def test_every_command_takes_a_configuration() -> None:
    """A script gives it to all alike; ``init`` alone makes one."""
    without = {
        name
        for name, command in commands(app)
        if "--config" not in {n for a in command.assemble_argument_collection() for n in a.names}
    }
    assert without == {"rso init"}


def test_nobodys_hash_costs_what_a_hash_costs() -> None:
    """What stands in for the hash of an unknown account is checked with the same work."""
    real = PasswordHasher().hash("a good password")
    assert extract_parameters(password._NOBODY) == extract_parameters(real)
    assert len(password._NOBODY) == len(real)
    assert not password.is_right("a good password", "")
    assert password.is_right("a good password", real)
    assert not password.is_right("another password", real)
    assert not password.is_right("a good password", "no hash")


def test_a_data_dir_that_cannot_be_used_ends_the_start(tmp_path: Path) -> None:
    """``rso serve`` says which folder and why, once, and gives up."""
    site = Site(tmp_path, free_port())
    text = site.config.read_text().replace('data_dir = "data"', 'data_dir = "rso.toml/data"')
    site.config.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "rso", "serve", "--role", "receive", "--config", str(site.config)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"data_dir cannot be used: {site.config}/data" in done.stderr
    assert "Not a directory" in done.stderr
    assert "Traceback" not in done.stderr


def test_work_leaves_the_processors_to_those_who_wait(tmp_path: Path) -> None:
    """Every thread of ``work`` is of a lower priority, and so is its session where those count."""
    site = Site(tmp_path, free_port())
    site.start()
    try:
        nice = {
            role: {os.getpriority(os.PRIO_PROCESS, int(thread.name))
                   for thread in Path(f"/proc/{site.pid(role)}/task").iterdir()}
            for role in ("receive", "web", "work")
        }  # fmt: skip
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert nice == {"receive": {own}, "web": {own}, "work": {min(own + 10, 19)}}
        group = Path(f"/proc/{site.pid('work')}/autogroup")
        if group.exists() and Path("/proc/sys/kernel/sched_autogroup_enabled").read_text() != "0\n":
            assert group.read_text().split()[-1] == "10"
    finally:
        site.stop()
