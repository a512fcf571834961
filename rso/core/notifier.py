"""The contract of notifiers: what carries messages on one channel, driven by the outbox."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from msgspec import Struct

from rso.core.transport import Health

__all__ = ["Message", "Notifier"]


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One notification to one address.

    Attributes:
        key: Dedupe key; the same key is the same message.
        text: Plain text, already within the channel's limits.
    """

    key: str
    event: str
    address: str
    subject: str
    text: str
    html: str = ""
    exam_number: str = ""
    language: str = "en"


class Notifier(ABC):
    """Carries notifications on one channel.

    ``follows`` says that the provider can be asked later what became of a message.
    """

    name: ClassVar[str]
    config_type: ClassVar[type[Struct]]
    follows: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def carries_patient_data(self) -> bool:
        """Whether the deployer lets messages of this channel name the patient, and it is safe."""
        return False

    @abstractmethod
    async def send(self, message: Message) -> str:
        """Hand one message to the provider; return what it said (``accepted``, a job id).

        Raises:
            TransientTransportError: Try again later.
            PermanentTransportError: This address or message will never work.
        """

    async def follow(self, ticket: str) -> str:  # noqa: ARG002  (a follower reads it)
        """Say what became of a message: ``delivered``, ``failed``, or empty while it is open.

        Args:
            ticket: What ``send`` returned, its first 200 characters.

        Raises:
            TransientTransportError: Ask again later.
            PermanentTransportError: Nobody will ever know: the next channel is tried.
        """
        return ""

    def check_address(self, address: str) -> str:
        """The address as the channel writes it.

        Raises:
            ConfigError: It cannot be one of this channel.
        """
        return address.strip()

    @abstractmethod
    async def health(self) -> Health:
        """Say whether the provider answers, without sending anything."""

    async def close(self) -> None:
        """Release connections."""
