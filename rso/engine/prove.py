"""Proving an address: a code goes there, and its owner brings it back by hand."""

from rso.engine.context import Engine
from rso.engine.notices import notice_of, write_message
from rso.ledger.contacts import add_contact

__all__ = ["send_code"]


async def send_code(engine: Engine, owner: str, channel: str, address: str) -> None:
    """Add an address that is not proven yet, and send the code that proves it.

    Args:
        engine: The engine.
        owner: The person's email.
        channel: One of the engine's notifiers.
        address: As it was typed.

    Raises:
        ConfigError: It is no address of this channel, or the person has too many.
        TransportError: The code could not be sent; the address waits for another.
    """
    kind, config = engine.plugins.notifiers[channel]
    notifier = kind(config)
    try:
        address = notifier.check_address(address)
        code = await add_contact(engine.ledger, owner, channel, address)
        notice = notice_of(engine.settings, "verify", None, code=code)
        message = write_message(
            engine.settings, notice, channel=channel, address=address, key=f"verify:{code}"
        )
        await notifier.send(message)
    finally:
        await notifier.close()
