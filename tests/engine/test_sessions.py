"""The threads that send: nothing queued is left without one."""

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rso.core.errors import TransientTransportError
from rso.core.routing import Destination
from rso.core.transport import Outcome, SendResult
from rso.engine import outgoing as outgoing_module
from rso.engine.sessions import Fault, SessionThreads


class Parcel:
    """As much of one as the threads ask for."""

    priority = 0
    pair = ("1.2", "1.2.840.10008.1.2")
    instance = "one"


class Link:
    """A sender whose link works when ``plan`` says so, for each opening and each sending."""

    parallel = 1
    most_pairs = 3

    def __init__(self, plan: str) -> None:
        self._plan = list(plan)

    def _step(self) -> None:
        if self._plan and self._plan.pop(0) == "x":
            raise TransientTransportError("it broke")

    def open(self, _wanted: Any) -> "Link":
        """A session."""
        self._step()
        return self

    def send(self, _outgoing: Any) -> SendResult:
        """One instance."""
        self._step()
        return SendResult(outcome=Outcome.ACKNOWLEDGED, code="0000")

    def close(self) -> None:
        """Nothing to release."""


class Preparer:
    """Opens nothing."""

    def outgoing(self, parcel: Parcel) -> Parcel:
        """The parcel itself."""
        return parcel


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until it is so."""
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_success_and_a_refused_connection_leave_nothing_behind() -> None:
    """One is sent, the link breaks, the next connection fails: the rest is sent all the same."""
    answers: list[SendResult | Fault] = []
    # Opened, sent, broken while sending, not opened again.
    link: Any = Link("..xx")
    preparer: Any = Preparer()
    threads = SessionThreads(link, preparer, lambda _parcel, result: answers.append(result))
    parcels: Any = [Parcel() for _ in range(6)]
    threads.put(parcels)
    eventually(lambda: len(answers) == 3)
    kinds = [type(answer).__name__ for answer in answers]
    assert kinds == ["SendResult", "Fault", "Fault"]
    eventually(lambda: not any(thread.is_alive() for thread in threads._threads))
    threads.tend()
    eventually(lambda: len(answers) == 6)
    assert all(isinstance(answer, SendResult) for answer in answers[3:])
    threads.close()


class Breaking(Preparer):
    """Fails, as a program does that has an error in it, for one of its parcels."""

    def __init__(self) -> None:
        self._left = 1

    def outgoing(self, parcel: Parcel) -> Parcel:
        """The parcel itself, but for the first."""
        if self._left:
            self._left -= 1
            raise BufferError("cannot close exported pointers exist")
        return parcel


def test_one_that_cannot_be_prepared_stops_itself_alone() -> None:
    """Whatever was raised: its instance is stopped for a person to see, the others go."""
    answers: list[Any] = []
    link: Any = Link("")
    preparer: Any = Breaking()
    threads = SessionThreads(link, preparer, lambda _parcel, result: answers.append(result))
    parcels: Any = [Parcel() for _ in range(4)]
    threads.put(parcels)
    eventually(lambda: len(answers) == 4)
    assert (answers[0].outcome, answers[0].code) == (Outcome.STOPPED, "local")
    assert answers[0].reason == "BufferError while it was prepared"
    assert all(answer.outcome is Outcome.ACKNOWLEDGED for answer in answers[1:])
    threads.close()


class Choosy(Link):
    """Takes three pairs a session, as it is told, and remembers which."""

    def __init__(self) -> None:
        super().__init__("")
        self.opened: list[list[tuple[str, str]]] = []

    def open(self, wanted: Any) -> Any:
        """A session for these pairs alone."""
        self.opened.append(list(wanted))
        return self

    def send(self, outgoing: Any) -> SendResult:
        """Stopped, where its pair was not asked for."""
        pair = getattr(outgoing, "pair", ("1.2", "1.2"))
        known = pair in self.opened[-1]
        outcome = Outcome.ACKNOWLEDGED if known else Outcome.STOPPED
        return SendResult(outcome=outcome, code="0000" if known else "context")


def test_pairs_beyond_the_most_wait_for_the_next_session() -> None:
    """More pairs than a session can be opened for: each instance is sent through one that has."""
    answers: list[Any] = []
    link: Any = Choosy()
    preparer: Any = Preparer()
    threads = SessionThreads(link, preparer, lambda _parcel, result: answers.append(result))
    parcels: Any = [Parcel() for _ in range(8)]
    for index, parcel in enumerate(parcels):
        parcel.pair = (f"1.{index}", "1.2.840.10008.1.2")
    threads.put(parcels)
    eventually(lambda: len(answers) == 8)
    threads.close()
    assert {answer.outcome for answer in answers} == {Outcome.ACKNOWLEDGED}
    assert [len(pairs) for pairs in link.opened] == [3, 3, 2]


def test_what_a_sender_says_fits_a_row() -> None:
    """No NUL and no control character of a peer gets further, and no code longer than its column.

    One such answer could not be written down on PostgreSQL: all of its group would be sent again.
    """

    class Rude(Link):
        def send(self, outgoing: Any) -> SendResult:
            if outgoing.instance == "fault":
                raise TransientTransportError("went\0 away\r\n")
            return SendResult(outcome=Outcome.STOPPED, code="A\x007" * 20, reason="no\0 room\x1b")

    answers: list[Any] = []
    link: Any = Rude("")
    preparer: Any = Preparer()
    threads = SessionThreads(link, preparer, lambda _parcel, result: answers.append(result))
    parcels: Any = [Parcel(), Parcel()]
    parcels[1].instance = "fault"
    threads.put(parcels)
    eventually(lambda: len(answers) == 2)
    threads.close()
    assert [(a.code, a.reason) for a in answers] == [("A7" * 8, "no room"), ("fault", "went away")]


def test_a_file_that_left_the_archive_is_no_fault_of_the_link(tmp_path: Path) -> None:
    """Gone or cut: its instance is stopped with the reason, and the session goes on."""
    answers: list[Any] = []
    link = Choosy()
    engine: Any = SimpleNamespace(plugins=SimpleNamespace(calls=lambda _hook: []))
    destination = Destination(code="D", radiologist="R", sender="s", egress="passthrough")
    (tmp_path / "cut").write_bytes(bytes(99))
    (tmp_path / "whole").write_bytes(bytes(100))
    exam: Any = None
    parcels = [
        outgoing_module.Parcel(
            item=name, delivery="", instance="", attempts=0, priority=0, sop_class_uid="1.2",
            sop_instance_uid="1.2", transfer_syntax_uid="1.2", path=tmp_path / name, offset=10,
            size=90, exam=exam, correct=False,
        )
        for name in ("whole", "gone", "cut", "whole")
    ]  # fmt: skip
    sender: Any = link
    threads = SessionThreads(
        sender,
        outgoing_module.Preparer(engine, destination),
        lambda _parcel, result: answers.append(result),
    )
    threads.put(parcels)
    eventually(lambda: len(answers) == 4)
    threads.close()
    assert [(a.code, a.reason) for a in answers] == [
        ("0000", ""),
        ("local", "its archive file cannot be read"),
        ("local", "its archive file is cut short"),
        ("0000", ""),
    ]
    assert len(link.opened) == 1
