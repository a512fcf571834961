"""The JSON API as it describes itself, tried by a machine that reads only the description."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from rso.testing.fixtures import missing
from rso.testing.modality import send_files
from rso.testing.pacs import Pacs
from rso.testing.postgres import find_postgres, running_postgres
from rso.testing.site import Site, wait_for
from rso.testing.study import delivered, make_study

SECONDS = 240


@pytest.fixture(params=["sqlite", "postgres"])
def site(request: pytest.FixtureRequest, tmp_path: Path, pacs: Pacs) -> Iterator[Site]:
    """A running RSO over either database."""
    with ExitStack() as stack:
        settings = []
        if request.param == "postgres":
            url = stack.enter_context(running_postgres(find_postgres() or missing("PostgreSQL")))
            settings.append(f'database.url="{url}"')
        made = Site(tmp_path, pacs.port, *settings)
        made.start()
        stack.callback(made.stop)
        yield made
        assert made.stop() == 0


@pytest.mark.timeout(300)
def test_the_api_does_as_it_says(site: Site, samples: Path, tmp_path: Path) -> None:
    """No server error, and every answer's status and form is one that the schema names."""
    token = site.rso("token", "create", "--user", site.admin["email"], "--json")["token"]
    base = f"http://127.0.0.1:{site.web}"
    schema = requests.get(f"{base}/schema/openapi.json", timeout=20).json()
    paths = schema["paths"]
    assert {"/api/exams", "/api/site", "/api/destinations", "/api/audit"} <= set(paths)
    # Pages are no part of it, but for what a program fetches of them.
    assert {path for path in paths if not path.startswith(("/api", "/dicomweb"))} == {
        "/exams/{number}/images.zip", "/exams/{number}/thumbnails/{instance}",
        "/holds/{hold_id}/thumbnails/{instance}",
    }  # fmt: skip
    number = site.rso("exam", "create", "--facility", "NORTH", "--patient-name", "Doe^Jane",
                      "--json")["exam_number"]  # fmt: skip
    who = {"PatientName": "ROE^R", "PatientBirthDate": "19800131", "PatientID": number}
    files = make_study(samples / "CT_small.dcm", tmp_path / "wrong", 1, **who)
    send_files(files, host="127.0.0.1", port=site.dicom, calling_ae_title="NORTHCT",
               called_ae_title="RSO")  # fmt: skip
    hold = wait_for(site.holds)[0]["id"]
    right = {"PatientName": "Doe^Jane", "PatientBirthDate": "", "PatientID": number}
    files = make_study(samples / "CT_small.dcm", tmp_path / "right", 2, **right)
    send_files(files, host="127.0.0.1", port=site.dicom, calling_ae_title="NORTHCT",
               called_ae_title="RSO")  # fmt: skip
    delivered(site, number, 2)
    me = {"Authorization": f"Bearer {token}"}

    def ask(path: str, **said: Any) -> Any:
        way = requests.post if said else requests.get
        answer = way(f"{base}{path}", headers=me, timeout=20, **({"json": said} if said else {}))
        assert answer.ok, answer.text
        return answer.json()

    found = ask(f"/api/exams/{number}/instances")
    assert [i["deliveries"][0]["state"] for i in found["instances"]] == ["acknowledged"] * 2
    instance = found["instances"][0]["id"]
    ask(f"/api/exams/{number}/notes", note="a note")
    view = ask("/api/views", name="a view")["views"][0]["key"]
    # What is there, so that more than "not found" is tried.
    config = tmp_path / "schemathesis.toml"
    config.write_text(
        f'[parameters]\nnumber = "{number}"\ncode = "READER-PACS"\nhold_id = "{hold}"\n'
        'destination = "READER-PACS"\nemail = "south@example.org"\n'
        f'instance = "{instance}"\nkey = "{view}"\nfacility = "NORTH"\n'
    )
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"), "--config-file", config,
            "run", f"{base}/schema/openapi.json",
            "--header", f"Authorization: Bearer {token}", "--seed", "7", "--max-examples", "3",
            "--phases", "examples,fuzzing", "--request-timeout", "20", "--no-color",
            "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,"
            "response_schema_conformance",
        ],
        capture_output=True, text=True, check=False, timeout=SECONDS, cwd=tmp_path,
        env={**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert site.rso("audit", "verify", "--json")["intact"]
