"""The notifier: SMS through any service that Apprise knows, and through Kannel."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from rso.plugins import (
    MESSAGES,
    MESSAGES_TILE,
    TELL_SOMEBODY,
    ExamAction,
    Health,
    Message,
    Notifier,
    Page,
    Secret,
    Tile,
    hookimpl,
)

__all__ = [
    "Sms",
    "SmsConfig",
    "rso_register_exam_actions",
    "rso_register_notifiers",
    "rso_register_pages",
    "rso_register_routes",
    "rso_register_tiles",
]


_SHORTEST_SECRET = 16  # characters: anybody may try at /sms/inbound


class SmsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section ``[plugins.sms]``."""

    url: Annotated[
        Secret,
        Meta(description="Apprise URL of the service, {address} where the number belongs"),
    ]
    inbound_secret: Annotated[
        Secret | None,
        Meta(
            description="a service that shows it may call /sms/inbound: STOP;"
            " at least 16 characters"
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.inbound_secret and len(self.inbound_secret.reveal()) < _SHORTEST_SECRET:
            raise ValueError(
                f"inbound_secret has less than {_SHORTEST_SECRET} characters: it can be guessed"
            )


class Sms(Notifier):
    """One text message to one number."""

    name = "sms"
    config_type = SmsConfig

    def __init__(self, config: SmsConfig) -> None:
        # Apprise takes half a second to load, and most processes never send.
        from rso.plugins.carrier import add_scheme  # noqa: PLC0415
        from rso_sms.kannel import NotifyKannel  # noqa: PLC0415

        super().__init__(config)
        add_scheme(NotifyKannel, "kannel", "kannels")
        self._url = config.url.reveal()

    def check_address(self, address: str) -> str:
        """A number as E.164 writes it."""
        from rso.plugins.carrier import check_phone_number  # noqa: PLC0415

        return check_phone_number(address)

    async def send(self, message: Message) -> str:
        """Hand the text over."""
        from rso.plugins.carrier import fill_address, hand_over  # noqa: PLC0415

        url = fill_address(self._url, message.address)
        return await hand_over(url, subject="", text=message.text)

    async def health(self) -> Health:
        """Whether the service's host answers."""
        from rso.plugins.carrier import reach  # noqa: PLC0415

        return await reach(self._url)


@hookimpl
def rso_register_notifiers() -> list[type[Notifier]]:
    """Text messages."""
    return [Sms]


@hookimpl
def rso_register_routes() -> list[Any]:
    """Where a service reports STOP and START."""
    from rso_sms.inbound import HANDLERS  # noqa: PLC0415  (only the web needs them)

    return HANDLERS


@hookimpl
def rso_register_pages() -> list[Page]:
    """What became of every message."""
    return [MESSAGES]


@hookimpl
def rso_register_exam_actions() -> list[ExamAction]:
    """Telling people of an exam."""
    return [TELL_SOMEBODY]


@hookimpl
def rso_register_tiles() -> list[Tile]:
    """Messages of the last day."""
    return [MESSAGES_TILE]
