"""Commands that are forked do what commands that are started do."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rso.testing.site import Site, free_port


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Set up, not running."""
    return Site(tmp_path, free_port())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["exam", "list", "--json"],
        ["exam", "show", "nonsense"],
        ["exam", "no-such-command"],
        ["hold", "release"],
    ],
)
def test_forked_and_started_are_alike(site: Site, arguments: list[str]) -> None:
    """Exit code, standard output and standard error are the same, done, failed or misused."""
    started = subprocess.run(
        [sys.executable, "-m", "rso", *arguments], capture_output=True, text=True, check=False,
        env={**os.environ, "RSO_CONFIG": str(site.config)}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    forked = site.run(*arguments)
    assert (forked.returncode, forked.stdout, forked.stderr) == (
        started.returncode, started.stdout, started.stderr,
    )  # fmt: skip
    assert started.stdout + started.stderr


def test_each_command_is_a_process_of_its_own(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many at once do not mix; the folder and the environment are those of the moment."""
    who = [f"P{n}^X" for n in range(12)]
    with ThreadPoolExecutor() as pool:
        made = list(pool.map(
            lambda name: site.rso("exam", "create", "--facility", "NORTH", "--patient-name", name,
                                  "--json")["exam_number"], who))  # fmt: skip
    assert len(set(made)) == len(who)
    assert {e["exam_number"] for e in site.exams()} == set(made)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(site, "config", Path("site/rso.toml"))
    assert len(site.exams()) == len(who)
    monkeypatch.setattr(site, "config", Path("nowhere.toml"))
    assert site.run("exam", "list").returncode == 1
