"""Commands that an installed plugin adds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rso.testing.site import Site, free_port

PLUGIN = '''
from rso.plugins import hookimpl


def greet(name: str, *, loud: bool = False) -> None:
    """Say hello."""
    print(f"HELLO {name}" if loud else f"hello {name}")


@hookimpl
def rso_register_commands():
    return [("greet", greet), ("exam", greet)]
'''


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """An environment in which a distribution with such a plugin is installed."""
    site = Site(tmp_path, free_port())
    folder = tmp_path / "packages"
    info = folder / "rso_greeter-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "rso_greeter.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rso-greeter\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[rso]\ngreeter = rso_greeter\n")
    return {**os.environ, "PYTHONPATH": str(folder), "RSO_CONFIG": str(site.config)}


def rso(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """Run the program."""
    return subprocess.run(
        [sys.executable, "-m", "rso", *words], env=environment, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip


def test_a_plugins_command(installed: dict[str, str]) -> None:
    """It runs, is in the help with its own help, and takes no name of RSO's."""
    done = rso(installed, "greet", "Ada", "--loud")
    assert (done.returncode, done.stdout) == (0, "HELLO Ada\n")
    assert "plugin greeter: its commands cannot be added: there is a command exam" in done.stderr
    assert "Say hello." in rso(installed, "--help").stdout
    assert rso(installed, "greet").returncode == 2
    assert rso(installed, "exam", "list", "--json").stdout.split() == ["{", '"exams":', "[]", "}"]


def test_without_a_site_there_is_none(installed: dict[str, str]) -> None:
    """What is missing is said, and the program's own commands and help work."""
    lost = installed | {"RSO_CONFIG": "nowhere.toml"}
    done = rso(lost, "greet", "Ada")
    assert done.returncode == 2
    assert "no such file" in done.stderr
    assert rso(lost, "--help").returncode == 0
