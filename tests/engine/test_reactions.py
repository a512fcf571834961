"""A React hook that raises, hangs or is gone holds up neither RSO's messages nor other plugins."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from rso.engine import outbox, reactions
from rso.engine.outbox import deliver_events
from rso.engine.reactions import Reactions
from rso.plugins import Exam, hookimpl


class Plugin:
    """Hangs until it is let go, for the first exam it hears of; then does as told."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.heard: list[str] = []
        self.fault: Exception | None = None

    def hear(self, exam: Exam) -> None:
        """One call."""
        self.heard.append(exam.number)
        self.let_go.wait(30)
        if self.fault is not None:
            raise self.fault


@pytest.fixture
def plug(world: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Plugin]]:
    """Adds plugins that hear of new exams; time-outs are short."""
    monkeypatch.setattr(reactions, "_SECONDS", 0.2)
    made: list[Plugin] = []

    def add(name: str) -> Plugin:
        plugin, module = Plugin(), ModuleType(name)

        @hookimpl
        def rso_exam_created(exam: Exam) -> None:
            plugin.hear(exam)

        module.rso_exam_created = rso_exam_created  # type: ignore[attr-defined]
        world.engine.plugins.register(module, name)
        made.append(plugin)
        return plugin

    yield add
    for plugin in made:
        plugin.let_go.set()


async def events(world: Any) -> list[tuple[str, dict[str, str]]]:
    """State and history of each event, the oldest first."""
    rows = await world.ledger.fetch("SELECT * FROM outbox WHERE kind = 'hook' ORDER BY id")
    return [(row["state"], msgspec.json.decode(row["history"]) or {}) for row in rows]


async def again(world: Any, calls: Reactions) -> None:
    """Deliver everything that is queued, due or not."""
    await world.ledger.execute("UPDATE outbox SET next_at = created_at WHERE kind = 'hook'")
    await deliver_events(world.engine, "test", reactions=calls)


async def test_a_plugin_that_hangs_silences_nobody(
    world: Any, plug: Callable[[str], Plugin]
) -> None:
    """Others hear of everything; it hangs once, is named, and goes on when it has ended."""
    hangs, well = plug("hangs"), plug("well")
    well.let_go.set()
    calls = Reactions()
    exams = [(await world.exam()).number for _ in range(3)]
    with capture_logs() as logs:
        await deliver_events(world.engine, "test", reactions=calls)
    assert well.heard == exams
    assert hangs.heard == exams[:1]
    assert [(e["event"], e["plugin"]) for e in logs] == [("plugin hangs in hook", "hangs")]
    assert [state for state, _ in await events(world)] == ["queued"] * 3
    await again(world, calls)
    assert hangs.heard == exams[:1]
    hangs.let_go.set()
    async with asyncio.timeout(10):
        while calls._hanging:
            await asyncio.sleep(0.01)
    await again(world, calls)
    assert hangs.heard == exams  # the one that it ended with late counts
    assert well.heard == exams
    assert await events(world) == [("done", {"rso": "done", "hangs": "done", "well": "done"})] * 3


async def test_messages_are_written_before_any_plugin_is_called(
    world: Any, plug: Callable[[str], Plugin], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every event that is due, while the first call of the first one hangs."""
    told: list[str] = []
    own = outbox.notify_event

    async def note(engine: Any, event: str, exam: Exam, facts: Any) -> int:
        told.append(exam.number)
        assert not hangs.heard
        return await own(engine, event, exam, facts)

    hangs = plug("hangs")
    monkeypatch.setattr(outbox, "notify_event", note)
    exams = [(await world.exam()).number for _ in range(2)]
    await deliver_events(world.engine, "test")
    assert told == exams
    await world.run()
    assert len(world.sms.sent) == 2


async def test_a_plugin_that_was_removed_is_not_waited_for(
    world: Any, plug: Callable[[str], Plugin]
) -> None:
    """Its error stays in the history; the event is done."""
    fails = plug("fails")
    fails.let_go.set()
    fails.fault = ValueError("no")
    await world.exam()
    calls = Reactions()
    await deliver_events(world.engine, "test", reactions=calls)
    assert await events(world) == [("queued", {"rso": "done", "fails": "ValueError: no"})]
    pm = world.engine.plugins._pm
    pm.unregister(name="fails")
    await again(world, calls)
    assert await events(world) == [("done", {"rso": "done", "fails": "ValueError: no"})]


async def test_a_message_that_cannot_be_written_holds_up_no_other_event(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again; the others are done."""
    first = await world.exam()
    await world.exam()
    own = outbox.notify_event

    async def broken(engine: Any, event: str, exam: Exam, facts: Any) -> int:
        if exam.id == first.id:
            raise KeyError("x")
        return await own(engine, event, exam, facts)

    with monkeypatch.context() as patch:
        patch.setattr(outbox, "notify_event", broken)
        await deliver_events(world.engine, "test")
    assert [state for state, _ in await events(world)] == ["queued", "done"]
    await again(world, Reactions())
    assert [state for state, _ in await events(world)] == ["done", "done"]
