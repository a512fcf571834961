"""Running the web application in its own process."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any

import uvicorn

from rso.core.errors import ConfigError

__all__ = ["serve_app"]


class _Server(uvicorn.Server):
    def install_signal_handlers(self) -> None:
        """The role's process has its own."""


async def serve_app(
    app: Any,
    host: str,
    port: int,
    stop: asyncio.Event,
    ready: Callable[[Sequence[str]], None],
) -> None:
    """Serve until ``stop`` is set, then let requests under way finish.

    Raises:
        ConfigError: The address cannot be listened on.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as exc:
        listener.close()
        raise ConfigError(f"web cannot listen on {host}:{port}: {exc.strerror}") from exc
    listener.listen(512)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # whose headers count is said in [web] trusted_proxies
        timeout_graceful_shutdown=20,
        lifespan="on",
    )
    server = _Server(config)
    task = asyncio.create_task(server._serve([listener]))
    while not server.started and not task.done():
        await asyncio.sleep(0.02)
    if not task.done():
        ready([f"http://{host}:{listener.getsockname()[1]}"])
        await asyncio.wait(
            {task, asyncio.ensure_future(stop.wait())}, return_when=asyncio.FIRST_COMPLETED
        )
        # Live pages would hold the server for as long as they are open.
        app.state.live.close()
        server.should_exit = True
    await task
