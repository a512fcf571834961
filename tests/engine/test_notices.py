"""Templates shown and checked, and the pace of sending."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from rso.core.exam import Patient
from rso.engine.check import run_checks
from rso.engine.check_notify import check_notify
from rso.engine.notice_check import languages_of, sample_messages, template_problems
from rso.engine.notices import notice_of, patient_line, write_message
from rso.engine.pace import Pace
from rso.plugins import Plugins

CHANNELS = ("email", "fax", "sms")


def test_every_sample_can_be_shown(settings_of: Any, tmp_path: Path) -> None:
    """In every language, with nothing wrong; an SMS is one and keeps its link."""
    settings = settings_of(tmp_path)
    assert languages_of(settings) == ["de", "en"]
    assert template_problems(settings, CHANNELS) == []
    for language in languages_of(settings):
        for sample in sample_messages(settings, language, CHANNELS):
            assert sample.text
            assert not sample.own
            if sample.channel == "sms" and "https://" in sample.text:
                assert sample.text.split()[-1].startswith("https://rso.example.org/")


def test_a_deployers_mistakes_are_named(settings_of: Any, tmp_path: Path) -> None:
    """A patient that is not there, bad syntax, a sum that fails; the rest stays RSO's."""
    own = tmp_path / "own"
    for language, name, text in (
        ("en", "manual.sms.txt", "x\n\n{{ patient }}"),
        ("fr", "study_held.txt", "x\n\n{% if %}"),
        ("en", "test.txt", "x\n\n{{ 1 / 0 }}"),
        ("en", "exam_created.txt", "Mine\n\nHello {{ tail }}"),
    ):
        (own / language).mkdir(parents=True, exist_ok=True)
        (own / language / name).write_text(text)
    settings = settings_of(tmp_path)
    settings = structs.replace(
        settings, notify=structs.replace(settings.notify, templates=str(own))
    )
    found = {(p.language, p.file, p.channel) for p in template_problems(settings, ("sms", "email"))}
    assert found == {
        ("en", "manual.sms.txt", "sms"), ("fr", "study_held.txt", "sms"),
        ("fr", "study_held.txt", "email"), ("en", "test.txt", "sms"), ("en", "test.txt", "email"),
    }  # fmt: skip
    mine = {s.text for s in sample_messages(settings, "en", CHANNELS) if s.own and not s.problem}
    assert mine == {"Hello TX9C"}


async def test_the_check_names_them(world: Any, tmp_path: Path) -> None:
    """``rso check`` fails for a broken template, and for an address that no provider takes."""
    own = tmp_path / "own" / "en"
    own.mkdir(parents=True)
    (own / "manual.txt").write_text("{{ nothing }}")
    settings = world.engine.settings
    notify = structs.replace(settings.notify, templates=str(own.parent))
    engine = structs.replace(world.engine, settings=structs.replace(settings, notify=notify))
    checks = {check.name: check for check in await run_checks(engine)}
    assert not checks["templates of messages"].ok
    assert "en/manual.txt" in checks["templates of messages"].detail
    assert checks["contacts sms"].ok
    assert checks["on call"].ok


def test_a_patient_is_one_line_of_a_mail(settings_of: Any, tmp_path: Path) -> None:
    """Where the deployer opted in: below the text, escaped in HTML, and never in the subject."""
    settings = settings_of(tmp_path)

    class Someone:
        patient = Patient(name="DOE^<b>JANE\r\nBcc: x@y", patient_id="P-77")

    line = patient_line(Someone())  # type: ignore[arg-type]
    assert "\n" not in line
    message = write_message(
        settings, notice_of(settings, "test", None), channel="email", address="a@b", key="1",
        patient=line,
    )  # fmt: skip
    assert "DOE <b>JANE  Bcc: x@y, P-77" in message.text
    assert "<b>JANE" not in message.html
    assert "JANE" not in message.subject


def test_the_pace_is_kept() -> None:
    """A burst of a tenth, then one a second; what a STAT exam took is made up for."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    pace = Pace(60)
    assert pace.left(at) == 6
    pace.take(6)
    assert pace.left(at) == 0
    pace.take(2)
    assert pace.left(at + timedelta(seconds=2)) == 0
    assert pace.left(at + timedelta(seconds=3)) == 1
    assert pace.left(at + timedelta(hours=1)) == 6


@pytest.mark.parametrize(
    ("host", "base_url", "messages", "said"),
    [
        ("0.0.0.0", "", True, (False, True)),
        ("::", "", True, (False, True)),
        ("0.0.0.0", "", False, (True, True)),
        ("0.0.0.0", "https://rso.example.org", True, None),
        ("127.0.0.1", "", True, (True, True)),
        ("localhost", "", True, (True, True)),
        ("127.0.0.1", "", False, None),
        ("10.0.0.7", "", True, None),
        ("rso.example.org", "", True, None),
    ],
)
async def test_links_that_lead_nowhere_are_named(
    world: Any, host: str, base_url: str, messages: bool, said: tuple[bool, bool] | None
) -> None:
    """Listening everywhere is no address: wrong where messages are sent, else a warning."""
    settings = structs.replace(
        world.engine.settings,
        web=structs.replace(world.engine.settings.web, host=host),
        site=structs.replace(world.engine.settings.site, base_url=base_url),
    )
    plugins = world.engine.plugins if messages else Plugins(settings)
    engine = structs.replace(world.engine, settings=settings, plugins=plugins)
    found = [c for c in await check_notify(engine) if c.name == "address of RSO"]
    assert [(c.ok, c.warning) for c in found] == ([said] if said else [])
    assert all("base_url in [site]" in c.detail for c in found)
