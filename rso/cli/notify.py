"""``rso notify``: test a channel, tell people of an exam, see what became of it."""

import sys
from typing import Annotated

from cyclopts import App, Parameter

from rso.cli.shared import Config, Json, actor, fail, print_json, run_with_engine, table

__all__ = ["register"]


def register(app: App) -> None:
    """Add the commands."""
    notify = App(name="notify", help="Tell people of exams.")
    notify.command(send)
    notify.command(try_channel, name="test")
    notify.command(list_, name="list")
    app.command(notify)


def try_channel(channel: str, address: str, *, config: Config = None, json: Json = False) -> None:
    """Send a test message now, past the outbox; says what the provider said."""
    import asyncio  # noqa: PLC0415

    from rso.engine.notices import notice_of, write_message  # noqa: PLC0415
    from rso.plugins import load_plugins  # noqa: PLC0415
    from rso.settings import load_settings  # noqa: PLC0415

    settings = load_settings(config)
    found = load_plugins(settings).notifiers.get(channel)
    if found is None:
        fail(f"no channel is called {channel}; configure [plugins.{channel}]")
        return
    notifier = found[0](found[1])
    message = write_message(
        settings, notice_of(settings, "test", None), channel=channel,
        address=notifier.check_address(address), key="test",
    )  # fmt: skip
    said = asyncio.run(notifier.send(message))
    if json:
        print_json({"channel": channel, "said": said})
    else:
        sys.stdout.write(f"{channel}: {said}\n")


def send(
    number: str,
    *,
    person: Annotated[list[str], Parameter(help="EMAIL, or EMAIL:CHANNEL; repeat for several")],
    note: Annotated[str, Parameter(help="read in RSO only")] = "",
    config: Config = None,
    json: Json = False,
) -> None:
    """Tell people of an exam, on one channel or on all that they have."""

    async def work(engine: object) -> int:
        from rso.engine.context import Engine  # noqa: PLC0415
        from rso.engine.exams import find_exam  # noqa: PLC0415
        from rso.engine.notify import notify_people, reachable  # noqa: PLC0415

        assert isinstance(engine, Engine)
        exam = await find_exam(engine.ledger, number)
        own = {p["email"]: p["channels"] for p in await reachable(engine, exam.facility)}
        chosen: dict[str, list[str]] = {}
        for text in person:
            email, _, channel = text.partition(":")
            chosen.setdefault(email, []).extend([channel] if channel else own.get(email, []))
        told = await notify_people(engine, exam, chosen, actor=actor(), note=note)
        return told.messages

    written = run_with_engine(config, work)
    if not written:
        fail("nobody was told: no such person with a usable contact at the exam's facility")
    if json:
        print_json({"messages": written})


def list_(number: str, *, config: Config = None, json: Json = False) -> None:
    """Show what became of an exam's messages."""

    async def work(engine: object) -> list[dict[str, object]]:
        from rso.engine.context import Engine  # noqa: PLC0415
        from rso.engine.exams import find_exam  # noqa: PLC0415
        from rso.engine.notify import exam_notifications  # noqa: PLC0415

        assert isinstance(engine, Engine)
        exam = await find_exam(engine.ledger, number)
        return await exam_notifications(engine.ledger, exam.id)

    shown = ("event", "recipient", "channel", "state", "attempts", "history")
    rows = [{name: row[name] for name in shown} for row in run_with_engine(config, work)]
    if json:
        print_json({"notifications": rows})
    else:
        table(shown[:5], [[row[name] for name in shown[:5]] for row in rows])
