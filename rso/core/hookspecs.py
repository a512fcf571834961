"""Every hook a plugin may implement, in the order an exam meets them.

*Register* hooks collect what plugins add. *Decide* hooks ask until one answers; they are plain
functions without I/O. *Review* asks everybody. *React* hooks run after commit, from the outbox.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pluggy

from rso.core.coercion import Coercion
from rso.core.contributions import ExamAction, Page, Tile
from rso.core.exam import Exam
from rso.core.header import Header
from rso.core.matching import Candidate, Decision, IncomingStudy
from rso.core.notifier import Notifier
from rso.core.routing import Attachment, Destination, Route
from rso.core.transport import Connection, Receiver, Sender, Source

__all__ = [
    "hookimpl",
    "hookspec",
    "rso_coerce",
    "rso_delivery_failed",
    "rso_exam_created",
    "rso_exam_delivered",
    "rso_exam_matched",
    "rso_exam_overdue",
    "rso_exam_settled",
    "rso_identify_source",
    "rso_make_exam_number",
    "rso_register_commands",
    "rso_register_exam_actions",
    "rso_register_notifiers",
    "rso_register_pages",
    "rso_register_receivers",
    "rso_register_routes",
    "rso_register_senders",
    "rso_register_tiles",
    "rso_release_recalled",
    "rso_review_match",
    "rso_route_exam",
    "rso_study_held",
]

hookspec = pluggy.HookspecMarker("rso")
hookimpl = pluggy.HookimplMarker("rso")


@hookspec
def rso_register_receivers() -> Sequence[type[Receiver]]:  # type: ignore[empty-body]
    """Register receivers, by class.

    Called once at start-up. Each is run when its section stands in rso.toml.
    """


@hookspec
def rso_register_senders() -> Sequence[type[Sender]]:  # type: ignore[empty-body]
    """Register senders, by class.

    Called once at start-up. Destinations choose one by its name.
    """


@hookspec
def rso_register_notifiers() -> Sequence[type[Notifier]]:  # type: ignore[empty-body]
    """Register notifiers, by class.

    Called once at start-up. Contacts choose one by its name, which is their channel.
    """


@hookspec
def rso_register_routes() -> Sequence[Any]:  # type: ignore[empty-body]
    """Register routes of the web application: Litestar handlers, controllers or routers.

    Called when the web application is made. Handlers authenticate by ``rso.web.auth``.
    """


@hookspec
def rso_register_pages() -> Sequence[Page]:  # type: ignore[empty-body]
    """Register entries of the main menu.

    Called once at start-up, after the plugin's configuration; a plugin whose transport is not
    configured adds none. The pages themselves are routes (``rso_register_routes``).
    """


@hookspec
def rso_register_exam_actions() -> Sequence[ExamAction]:  # type: ignore[empty-body]
    """Register buttons on the exam's page.

    Called once at start-up, after the plugin's configuration; a plugin whose transport is not
    configured adds none. The route behind a button decides itself who may use it.
    """


@hookspec
def rso_register_tiles() -> Sequence[Tile]:  # type: ignore[empty-body]
    """Register tiles of the dashboard.

    Called once at start-up, after the plugin's configuration; a plugin whose transport is not
    configured adds none. A tile's route answers with a fragment of HTML without scripts.
    """


@hookspec
def rso_register_commands() -> Sequence[tuple[str, Callable[..., Any]]]:  # type: ignore[empty-body]
    """Register commands of the ``rso`` program: name and function.

    Called when the program is asked for a command that is not RSO's own, or for help, in a site's
    folder or with RSO_CONFIG. The function's signature and docstring make its help; a name that
    RSO has is refused.
    """


@hookspec(firstresult=True)
def rso_make_exam_number(facility: str) -> str | None:
    """Decide the number of a new exam.

    Called while an exam is created; ``None`` lets the next plugin decide, in the end RSO's own
    scheme. A number that exists is asked for again. An exception stops the creation.
    """


@hookspec(firstresult=True)
def rso_identify_source(connection: Connection, sources: Sequence[Source]) -> Source | None:
    """Decide which source a peer is, before anything of it is accepted.

    Called for every connection with a snapshot of the sources; ``None`` lets the next plugin
    decide, and refuses the peer in the end. An exception refuses it too.
    """


@hookspec
def rso_review_match(
    study: IncomingStudy, candidates: Sequence[Candidate], decision: Decision
) -> Decision | None:
    """Review what the matching table decided.

    Called for every decision; each plugin is asked. A returned hold wins over a match or a new
    exam; anything looser than the table's own decision is ignored. ``None`` agrees. An exception
    holds the Study and names the plugin.
    """


@hookspec(firstresult=True)
def rso_route_exam(exam: Exam, attachments: Sequence[Attachment]) -> Route | None:
    """Decide where an exam goes.

    Called when the first images are matched to an exam, and again while it has no destination.
    Later images go where the exam is on its way already. ``None`` lets the next plugin decide. An
    exception holds the exam.
    """


@hookspec(firstresult=True)
def rso_coerce(header: Header, destination: Destination) -> Coercion | None:
    """Decide what to replace in an instance's header on its way to a destination.

    Called before an instance is sent; ``None`` leaves it to the destination's egress mode. A
    released mismatch leaves corrected whatever a plugin says. An exception stops the instance.
    """


@hookspec
def rso_exam_created(exam: Exam) -> None:
    """React to a new exam, requested or made from images."""


@hookspec
def rso_study_held(exam: Exam | None, hold: str, reason: str) -> None:
    """React to a Study that waits for a person; ``exam`` is the one suspected, if one is."""


@hookspec
def rso_exam_matched(exam: Exam) -> None:
    """React to images that joined an exam."""


@hookspec
def rso_exam_overdue(exam: Exam) -> None:
    """React to an exam that was not delivered within its turnaround target."""


@hookspec
def rso_exam_settled(exam: Exam) -> None:
    """React to an exam that has been quiet long enough, or is complete."""


@hookspec
def rso_exam_delivered(exam: Exam) -> None:
    """React to an exam of which every destination acknowledged n of n."""


@hookspec
def rso_delivery_failed(exam: Exam, destination: str, code: str, reason: str) -> None:
    """React to instances that a destination will not take without a person."""


@hookspec
def rso_release_recalled(exam: Exam, hold: str, sent: int) -> None:
    """React to a match that was taken back: so many instances had been sent under it."""
