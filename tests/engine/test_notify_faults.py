"""A fault of one provider or one message stops neither the others nor the process."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from types import ModuleType
from typing import Any

import pytest
from msgspec import structs
from structlog.testing import capture_logs

from rso.core.errors import PermanentTransportError
from rso.core.notifier import Notifier
from rso.engine import again, dispatch, notify_loop
from rso.engine.again import keep_running
from rso.engine.context import Engine
from rso.engine.notify import exam_notifications, notify_people
from rso.engine.notify_loop import open_notifiers
from rso.ledger import LedgerUnavailable
from rso.ledger.contacts import add_contact, confirm_contact, contacts_of
from rso.ledger.exams import now
from rso.plugins import Plugins, hookimpl
from rso.testing.notifier import FakeNotifier


async def fax_to_follow(world: Any) -> None:
    """A fax that was handed over, with email as the person's next channel."""
    code = await add_contact(world.ledger, "tech@example.org", "fax", "+12025550101")
    contact = (await contacts_of(world.ledger, "tech@example.org"))[-1]
    await confirm_contact(world.ledger, "tech@example.org", contact["id"], code)
    exam = await world.exam()
    await notify_people(world.engine, exam, {"tech@example.org": ["fax"]}, actor="c")
    await world.run()
    assert len(world.fax.sent) == 1


async def test_a_fax_that_nobody_knows_any_more_goes_another_way(world: Any) -> None:
    """The server answers 5xx to the question: the person is told on the next channel."""
    await fax_to_follow(world)
    world.fax.fate = PermanentTransportError("HylaFAX answered 504")
    await world.run(now() + timedelta(minutes=1))
    assert len(world.sms.sent) + len(world.email.sent) == 1
    (row,) = await exam_notifications(world.ledger)
    assert "HylaFAX answered 504" in str(row["history"])


async def test_a_plugin_that_cannot_follow_is_named_once(world: Any) -> None:
    """Its own fault is nothing found: asked again, said once, over after a day."""
    await fax_to_follow(world)
    world.fax.fate = KeyError("DOE^JANE")
    with capture_logs() as logs:
        for minutes in (1, 2, 3):
            await world.run(now() + timedelta(minutes=minutes))
    assert [e["event"] for e in logs].count("message cannot be followed") == 1
    (row,) = await exam_notifications(world.ledger)
    assert row["state"] == "accepted"
    assert str(row["history"]).count("cannot be followed: KeyError") == 1
    assert "DOE" not in str(row["history"])
    await world.run(now() + timedelta(hours=25))
    (row,) = await world.ledger.fetch("SELECT done_at FROM outbox WHERE kind = 'notify'")
    assert row["done_at"] is not None


async def test_what_was_handed_over_is_noted_whatever_else_fails(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row's fault cancels no other: nothing that is under way is sent again."""
    exam = await world.exam()
    chosen = {"tech@example.org": ["sms"], "boss@example.org": ["email"]}
    await notify_people(world.engine, exam, chosen, actor="c")
    contact_of = notify_loop._contact

    async def unavailable(engine: Engine, contact_id: str) -> Any:
        found = await contact_of(engine, contact_id)
        if found is not None and found["channel"] == "email":
            raise LedgerUnavailable("away")
        return found

    world.sms.seconds = 0.1
    with monkeypatch.context() as patch:
        patch.setattr(notify_loop, "_contact", unavailable)
        with pytest.raises(LedgerUnavailable):
            await world.run()
    assert sorted(await world.states()) == ["accepted", "queued"]
    await world.run(now() + timedelta(minutes=5))
    assert (len(world.sms.sent), len(world.email.sent)) == (1, 1)


async def test_an_odd_ticket_is_kept_as_it_can_be(world: Any) -> None:
    """What a provider answers may be no text, or text that no row holds."""
    exam = await world.exam()
    monkey: Callable[[Any], Awaitable[Any]] = world.sms.send

    async def odd(message: Any) -> Any:
        await monkey(message)
        return f"id\0{'7' * 300}"

    world.sms.send = odd
    await notify_people(world.engine, exam, {"tech@example.org": ["sms"]}, actor="c")
    await world.run()
    assert await world.states() == ["accepted"]
    (row,) = await exam_notifications(world.ledger)
    assert row["ticket"] == f"id{'7' * 198}"


class Broken(FakeNotifier):
    name = "pager"

    def __init__(self, config: Any = None) -> None:
        raise ValueError("no such modem")


def test_a_notifier_that_cannot_be_made_leaves_the_others(world: Any) -> None:
    """Its channel is not carried; the rest is."""
    plugins = Plugins(structs.replace(world.engine.settings, plugins={"pager": {}, "fakes": {}}))
    module = ModuleType("pager")

    @hookimpl
    def rso_register_notifiers() -> list[type[Notifier]]:
        return [Broken, type(world.sms)]

    module.rso_register_notifiers = rso_register_notifiers  # type: ignore[attr-defined]
    plugins.register(module, "pager")
    assert list(open_notifiers(structs.replace(world.engine, plugins=plugins))) == ["sms"]


async def test_a_sender_that_cannot_be_made_leaves_the_others(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it raises, its destination says so and the dispatcher goes on."""

    def broken(*_: Any) -> Any:
        raise ValueError("DOE^JANE")

    monkeypatch.setattr(dispatch, "make_sender", broken)
    dispatcher = dispatch.Dispatcher(engine, "host/work-0/1")
    await dispatcher._reload()
    (row,) = await engine.ledger.fetch("SELECT last_error FROM destination")
    assert row["last_error"] == "ValueError in the sender"


async def test_a_loop_begins_anew_after_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said once while it is the same; told to stop, it ends."""
    monkeypatch.setattr(again, "_FAULT_SECONDS", 0.01)
    stop, turns = asyncio.Event(), 0

    async def loop() -> None:
        nonlocal turns
        turns += 1
        if turns < 4:
            raise OSError("no room")
        stop.set()

    with capture_logs() as logs:
        await asyncio.wait_for(keep_running(loop, stop, what="a test"), 5)
    assert turns == 4
    assert [(e["event"], e["what"]) for e in logs] == [("begins anew after a fault", "a test")]
