"""``rso exam …``."""

import re
from typing import Any, Literal

from cyclopts import App

from rso.cli.shared import Config, Json, actor, fail, print_json, run_with_engine, table

__all__ = ["register"]

Priority = Literal["stat", "urgent", "routine"]
Status = Literal["requested", "receiving", "settled", "delivered", "closed", "cancelled"]


def register(app: App) -> None:
    """Add the commands."""
    exam = App(name="exam", help="Create, show and change exams.")
    for command in (create, show, cancel, complete, close):
        exam.command(command)
    exam.command(list_, name="list")
    app.command(exam)


def create(
    *,
    facility: str,
    patient_name: str,
    patient_id: str = "",
    birth_date: str = "",
    sex: Literal["M", "F", "O", ""] = "",
    modality: str = "",
    body_part: str = "",
    accession_number: str = "",
    priority: Priority = "routine",
    config: Config = None,
    json: Json = False,
) -> None:
    """Create an exam and print its number."""
    from rso.core import exam as core  # noqa: PLC0415
    from rso.core.names import parse_birth_date  # noqa: PLC0415
    from rso.core.number import format_number  # noqa: PLC0415
    from rso.engine.exams import create_exam  # noqa: PLC0415

    if birth_date:
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", birth_date):
            fail("--birth-date is written YYYY-MM-DD")
        if not parse_birth_date(birth_date.replace("-", "")):
            fail(f"--birth-date {birth_date}: no such day")

    async def work(engine: Any) -> core.Exam:
        return await create_exam(
            engine,
            facility=facility,
            patient=core.Patient(
                name=patient_name,
                patient_id=patient_id,
                birth_date=birth_date.replace("-", ""),
                sex=sex,
            ),
            priority=core.Priority(priority),
            modality=modality,
            body_part=body_part,
            accession_number=accession_number,
            actor=actor(),
        )

    made = run_with_engine(config, work)
    if json:
        print_json({"exam_number": made.number})
    else:
        print(format_number(made.number))


def show(number: str, *, config: Config = None, json: Json = False) -> None:
    """Show an exam: its Studies, and n of n for each destination."""
    from rso.core.delivery import reason_words  # noqa: PLC0415
    from rso.core.number import format_number  # noqa: PLC0415
    from rso.engine.exams import show_exam  # noqa: PLC0415

    view = run_with_engine(config, lambda engine: show_exam(engine.ledger, number))
    if json:
        print_json(view)
        return
    expected = view.expected_instances
    count = f"{view.instances} of {expected}" if expected else view.instances
    rows: list[tuple[object, object]] = [
        ("exam", format_number(view.exam_number)),
        ("status", view.status),
        ("facility", view.facility),
        ("origin", view.origin),
        ("instances", count),
        ("flags", ", ".join(view.flags)),
    ]
    rows += [("Study", f"{s.study_instance_uid}  {s.state}  {s.instances}") for s in view.studies]
    for d in view.deliveries:
        rows.append((d.destination, f"{d.state}  {d.acknowledged} of {d.total}  {d.last_error}"))
        rows += [
            ("", f"{p['instances']} x {p['code']} {reason_words(p['code'], p['reason'])}")
            for p in d.problems
        ]
    table(["", ""], rows)


def list_(*, status: Status | None = None, config: Config = None, json: Json = False) -> None:
    """List exams, newest first."""
    from rso.core.number import format_number  # noqa: PLC0415
    from rso.engine.exams import list_exams  # noqa: PLC0415

    found = run_with_engine(config, lambda engine: list_exams(engine.ledger, status=status))
    if json:
        print_json({"exams": found})
    else:
        table(
            ["exam", "status", "facility", "origin", "instances"],
            [
                (format_number(e.exam_number), e.status, e.facility, e.origin, e.instances)
                for e in found
            ],
        )


def cancel(number: str, *, reason: str, config: Config = None) -> None:
    """Cancel an exam: nothing more of it is sent."""
    from rso.engine.exams import cancel_exam, find_exam  # noqa: PLC0415

    async def work(engine: Any) -> None:
        exam = await find_exam(engine.ledger, number)
        await cancel_exam(engine, exam, actor=actor(), reason=reason)

    run_with_engine(config, work)


def complete(number: str, *, instances: int | None = None, config: Config = None) -> None:
    """Say that an exam is complete: with so many instances, or what is here."""
    from rso.engine.exams import complete_exam, find_exam  # noqa: PLC0415

    async def work(engine: Any) -> None:
        exam = await find_exam(engine.ledger, number)
        await complete_exam(engine, exam, actor=actor(), expected=instances)

    run_with_engine(config, work)


def close(number: str, *, reason: str = "", config: Config = None) -> None:
    """Close an exam that is done: later images of it are held."""
    from rso.engine.exams import close_exam, find_exam  # noqa: PLC0415

    async def work(engine: Any) -> None:
        exam = await find_exam(engine.ledger, number)
        await close_exam(engine, exam, actor=actor(), reason=reason)

    run_with_engine(config, work)
