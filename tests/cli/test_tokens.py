"""Tokens by the command line."""

from pathlib import Path

import requests

from rso.testing.pacs import Pacs
from rso.testing.site import Site
from rso.testing.study import delivered, make_study, missing


def test_a_sources_token(site: Site, samples: Path, tmp_path: Path, pacs: Pacs) -> None:
    """Made, listed and ended; `rso send` uploads with it, and whose it is must be right."""
    for words, code, said in (
        ((), 2, "a person's or a source's"),
        (("--user", "tech@example.org", "--source", "north-gateway"), 2, "a person's or a source's"),
        (("--user", "tech@example.org", "--facility", "NORTH"), 2, "goes with --source"),
        (("--source", "elsewhere"), 1, "no source of channel http_upload is called elsewhere"),
        (("--source", "NORTHCT", "--facility", "NORTH"), 1, "no source of channel http_upload"),
        (("--source", "north-gateway", "--facility", "SOUTH"), 1, "is of NORTH, not of SOUTH"),
        (("--source", "north-gateway", "--facility", "WEST"), 1, "is of NORTH, not of WEST"),
    ):  # fmt: skip
        refused = site.run("token", "create", *words)
        assert (refused.returncode, refused.stdout) == (code, ""), words
        assert said in " ".join(refused.stderr.split()), words
    assert site.rso("token", "list", "--json") == {"tokens": []}
    made = site.rso("token", "create", "--source", "north-gateway", "--facility", "NORTH",
                    "--name", "mirror").strip()  # fmt: skip
    assert made.startswith("rso_")
    exam = site.rso("exam", "create", "--facility", "NORTH", "--patient-name", "DOE^JANE",
                    "--json")["exam_number"]  # fmt: skip
    files = make_study(samples / "CT_small.dcm", tmp_path / "study", 3, PatientID=exam,
                       PatientName="DOE^JANE")  # fmt: skip
    upload = ("send", exam, *map(str, files), "--url", f"http://127.0.0.1:{site.web}",
              "--token", made, "--json")  # fmt: skip
    assert site.rso(*upload)["stored"] == 3
    delivered(site, exam, 3)
    assert missing(pacs, files) == 0
    (shown,) = site.rso("token", "list", "--json")["tokens"]
    assert (shown["source"], shown["account"], shown["name"]) == ("north-gateway", "", "mirror")
    assert shown["last_used_at"]
    assert made not in site.rso("token", "list")
    site.rso("token", "revoke", shown["id"])
    assert site.run("token", "revoke", shown["id"]).returncode == 1
    refused = site.run(*upload)
    assert refused.returncode == 1
    assert "unknown or was revoked" in refused.stderr
    boss = site.rso("token", "create", "--user", site.admin["email"], "--json")["token"]
    entries = requests.get(
        f"http://127.0.0.1:{site.web}/api/audit", headers={"Authorization": f"Bearer {boss}"},
        timeout=20,
    ).json()["entries"]  # fmt: skip
    noted = [e for e in entries if e["action"] in {"token made", "token ended"}]
    assert [e["action"] for e in noted] == ["token made", "token ended", "token made"]
    assert noted[2]["facts"] == {"source": "north-gateway", "name": "mirror"}
    assert made not in str(entries)
