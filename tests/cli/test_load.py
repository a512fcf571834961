"""``rso load`` and ``rso exam create`` say what is wrong in what they were given, and where."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rso.core.number import make_number
from rso.settings import resolve_secrets
from rso.testing.site import SITE, Site, free_port

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A set-up RSO that does not run."""
    return Site(tmp_path_factory.mktemp("load"), free_port())


WRONG = [
    ('ae_title = "PACS"', 'ae_titel = "PACS"', 'unknown field `ae_titel`', "READER-PACS"),
    ('facilities = ["NORTH"]', 'facilities = ["NROTH"]', "no facility has the code NROTH", "tech@"),
    ("networks =", "network =", "unknown field `network`", "$.facility[0].sources[0]"),
    ('password = "{north}"', 'password = {{ env = "RSO_NOT_SET" }}', "RSO_NOT_SET is not set",
     "$.facility[0].sources[2].password"),
]  # fmt: skip


@pytest.mark.parametrize(("right", "wrong", "what", "where"), WRONG)
def test_a_wrong_document_is_refused_with_its_place(
    site: Site, tmp_path: Path, right: str, wrong: str, what: str, where: str
) -> None:
    """The message names the file, the thing and what is wrong with it; nothing changes."""
    before = site.rso("export", "--json")
    file = tmp_path / "mine.toml"
    file.write_text(SITE.replace(right, wrong, 1).format(pacs=1, good="x" * 12, north="y" * 12))
    done = site.run("load", str(file))
    assert done.returncode == 1
    for word in (str(file), what, where):
        assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert site.rso("export", "--json") == before


def test_the_readme_can_be_followed(tmp_path: Path) -> None:
    """Its first set-up, pasted block by block: nothing is missing, and nothing waits for ever."""
    section = README.read_text().split("## A first real set-up")[1].split("\n## ")[0]
    blocks = re.findall(r"^```\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    assert any("rso serve" in block for block in blocks)
    for block in blocks:
        lines = block.splitlines()
        assert "$EDITOR" not in block
        assert not any(line.startswith("rso serve") for line in lines[:-1]), "it does not return"
    # Without what builds the program, what goes on, and what asks a PACS that is not there.
    skipped = re.compile(r"^(make venv|\. \.venv|rso serve|rso check).*\n", re.MULTILINE)
    script = skipped.sub("", "".join(blocks)).replace("/srv/rso", str(tmp_path / "rso"))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", script], env={"PATH": path, "HOME": str(tmp_path)},
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "1 facilities, 1 radiologists, 1 users" in done.stdout
    assert re.search(r"status +requested", done.stdout)


def test_what_no_plugin_here_carries_is_warned_of(site: Site, tmp_path: Path) -> None:
    """A sender or channel that is not installed may come later, and is named until then."""
    file = tmp_path / "mine.toml"
    file.write_text(
        '[[facility]]\ncode = "EAST"\n'
        'sources = [{ channel = "pigeon", identity = "coop", kind = "technician", password = "coo coo coo coo" }]\n'
        '[[radiologist]]\ncode = "FAR"\n'
        'destinations = [{ code = "FAR-BOX", sender = "bottle" }]\n'
    )
    assert site.rso("load", str(file), "--json")["warnings"] == [
        "destination FAR-BOX: no sender in use is called bottle",
        "source pigeon/coop of EAST: no plugin in use is called pigeon",
    ]


def test_an_option_may_be_called_file_or_env(tmp_path: Path) -> None:
    """A plugin's section with that one option is a section; a secret within it is one still."""
    (tmp_path / "word").write_text("secret\n")
    document = {
        "plugins": {"pager": {"file": "out.txt"}, "sms": {"url": {"file": "word"}}},
        "radiologist": [{"destinations": [{"options": {"env": "blue"}}]}],
    }
    assert resolve_secrets(document, tmp_path) == {
        "plugins": {"pager": {"file": "out.txt"}, "sms": {"url": "secret"}},
        "radiologist": [{"destinations": [{"options": {"env": "blue"}}]}],
    }


@pytest.mark.parametrize("day", ["1970-13-31", "1970-02-30", "31.1.1970"])
def test_a_birth_date_is_a_real_day(site: Site, day: str) -> None:
    """One that is none would count as not known, and hold the images."""
    done = site.run("exam", "create", "--facility", "NORTH", "--patient-name", "A^B",
                    "--birth-date", day)  # fmt: skip
    assert done.returncode == 1
    assert "--birth-date" in done.stderr
    assert site.rso("exam", "list", "--json")["exams"] == []


def test_a_folder_with_other_files_is_stamped(site: Site, samples: Path, tmp_path: Path) -> None:
    """A read-me among the images is named and left out."""
    folder = tmp_path / "cd"
    folder.mkdir()
    (folder / "README.TXT").write_text("no image" * 100)
    (folder / "z.dcm").write_bytes((samples / "CT_small.dcm").read_bytes())
    done = site.rso("stamp", make_number(), str(folder), "--out", str(tmp_path / "o"), "--json")
    assert [Path(f).name for f in done["stamped"]] == ["z.dcm"]
    assert [Path(f["file"]).name for f in done["skipped"]] == ["README.TXT"]
    assert done["failed"] == []


def test_folders_with_equal_names_inside_are_all_stamped(
    site: Site, samples: Path, tmp_path: Path
) -> None:
    """Two discs, each with IM1: both are there; a file that is there already fails the command."""
    image = (samples / "CT_small.dcm").read_bytes()
    for folder in ("one/disc", "two/disc"):
        (tmp_path / folder / "A").mkdir(parents=True)
        (tmp_path / folder / "A" / "IM1").write_bytes(image)
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "IM1.dcm").write_bytes(image)
    out = tmp_path / "o"
    given = ["one/disc", "two/disc", "x/IM1.dcm", "y/IM1.dcm"]
    arguments = [make_number(), *(str(tmp_path / path) for path in given), "--out", str(out)]
    done = site.rso("stamp", *arguments, "--json")
    assert [str(Path(f).relative_to(out)) for f in done["stamped"]] == [
        "disc/A/IM1", "disc-2/A/IM1", "IM1.dcm", "IM1-2.dcm",
    ]  # fmt: skip
    again = site.run("stamp", *arguments)
    assert again.returncode == 1
    assert again.stdout == "0 files stamped, 0 skipped, 4 failed\n"
    (out / "IM1.dcm").unlink()
    again = site.run("stamp", *arguments)
    assert again.returncode == 1
    assert again.stdout == "1 files stamped, 0 skipped, 3 failed\n"
