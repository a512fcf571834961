"""Messages in words: Jinja templates by language and event, a deployer's before RSO's."""

import html
from functools import lru_cache
from pathlib import Path

from jinja2 import FileSystemLoader, StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment
from msgspec import structs

from rso.core.errors import ConfigError
from rso.core.exam import Exam
from rso.core.notifying import Notice, fit_sms
from rso.core.number import format_number
from rso.core.transport import Message
from rso.settings import Settings

__all__ = ["notice_of", "write_message"]

_OWN = Path(__file__).parents[1] / "notices"


@lru_cache(maxsize=8)
def _environment(folder: str, language: str) -> SandboxedEnvironment:
    places = [Path(folder) / language, Path(folder)] if folder else []
    places += [_OWN / language, _OWN / "en"]
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


def write_message(
    settings: Settings,
    notice: Notice,
    *,
    channel: str,
    address: str,
    key: str,
    leave_link: str = "",
) -> Message:
    """One message for one channel.

    Raises:
        ConfigError: A deployer's template is wrong.
    """
    section = settings.notify
    environment = _environment(section.templates, section.language)
    names = [f"{notice.event}.{channel}.txt", f"{notice.event}.txt"]
    try:
        text = environment.select_template(names).render(structs.asdict(notice))
    except TemplateError as exc:
        raise ConfigError(f"template of {notice.event}: {exc}") from exc
    subject, _, body = text.strip().partition("\n")
    body = body.strip()
    if channel == "sms":
        body = fit_sms(" ".join(body.split()), keep=notice.link)
    elif leave_link and channel == "email":
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
