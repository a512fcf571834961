"""Messages in words: Jinja templates by language and event, a deployer's before RSO's."""

import html
from functools import lru_cache
from pathlib import Path

from jinja2 import FileSystemLoader, StrictUndefined, TemplateNotFound
from jinja2.sandbox import SandboxedEnvironment
from msgspec import structs

from rso.core.errors import ConfigError
from rso.core.exam import Exam
from rso.core.notifier import Message
from rso.core.notifying import Notice, fit_sms
from rso.core.number import format_number
from rso.settings import Settings

__all__ = ["OWN_TEMPLATES", "notice_of", "patient_line", "template_file", "write_message"]

OWN_TEMPLATES = Path(__file__).parents[1] / "notices"


@lru_cache(maxsize=8)
def _environment(folder: str, language: str) -> SandboxedEnvironment:
    places = [Path(folder) / language, Path(folder)] if folder else []
    places += [OWN_TEMPLATES / language, OWN_TEMPLATES / "en"]
    # Text, not HTML: what goes into HTML is escaped where that is built.
    return SandboxedEnvironment(
        loader=FileSystemLoader(places), undefined=StrictUndefined, autoescape=False
    )


def notice_of(
    settings: Settings, event: str, exam: Exam | None, *, code: str = "", matter: str = ""
) -> Notice:
    """What a template may say of an exam: never anything of its patient.

    The link of a ``matter`` leads to where its receiver says that they see to it.
    """
    site, base = settings.site.name, settings.base_url
    acknowledge = f"{base}/acknowledge/{matter}" if matter else ""
    if exam is None:
        return Notice(event=event, site=site, link=acknowledge or f"{base}/holds", code=code)
    return Notice(
        event=event,
        site=site,
        link=acknowledge or f"{base}/exams/{exam.number}",
        tail=exam.number[-4:],
        exam_number=format_number(exam.number),
        priority=exam.priority.value,
        facility=exam.facility,
        code=code,
    )


def patient_line(exam: Exam) -> str:
    """Who it is, on one line, without what could begin another."""
    patient = exam.patient
    parts = (patient.name.replace("^", " "), patient.patient_id, str(patient.birth_date or ""))
    line = ", ".join(part.strip() for part in parts if part.strip())
    return "".join(c if c.isprintable() else " " for c in line)[:200]


def _names(event: str, channel: str) -> list[str]:
    return [f"{event}.{channel}.txt", f"{event}.txt"]


def template_file(settings: Settings, event: str, channel: str) -> Path | None:
    """The file that a message is made from; ``None`` when there is none."""
    section = settings.notify
    environment = _environment(section.templates, section.language)
    assert environment.loader is not None
    for name in _names(event, channel):
        try:
            _, file, _ = environment.loader.get_source(environment, name)
        except TemplateNotFound:
            continue
        return Path(str(file))
    return None


def write_message(
    settings: Settings,
    notice: Notice,
    *,
    channel: str,
    address: str,
    key: str,
    leave_link: str = "",
    patient: str = "",
) -> Message:
    """One message for one channel.

    ``patient`` is told below the text; empty unless the deployer lets this channel name patients.

    Raises:
        ConfigError: A deployer's template is wrong.
    """
    section = settings.notify
    environment = _environment(section.templates, section.language)
    try:
        template = environment.select_template(_names(notice.event, channel))
        text = template.render(structs.asdict(notice))
    except Exception as exc:  # a template may divide by nothing, or index what is not there
        raise ConfigError(f"template of {notice.event}: {type(exc).__name__}: {exc}") from exc
    subject, _, body = text.strip().partition("\n")
    body = body.strip()
    if channel == "sms":
        body = fit_sms(" ".join(body.split()), keep=notice.link)
    elif patient:
        body = f"{body}\n\n{patient}"
    if leave_link and channel == "email":
        body = f"{body}\n\n--\n{notice.site}: {leave_link}"
    return Message(
        key=key,
        event=notice.event,
        address=address,
        subject=" ".join(subject.split())[:120],
        text=body,
        html=_html(body) if channel == "email" else "",
        exam_number=notice.exam_number,
        language=section.language,
    )


def _html(text: str) -> str:
    lines = [html.escape(line) for line in text.splitlines()]
    shown = [
        " ".join(
            f'<a href="{word}">{word}</a>' if word.startswith(("http://", "https://")) else word
            for word in line.split(" ")
        )
        for line in lines
    ]
    return f"<p>{'<br>'.join(shown)}</p>"
