"""One process that serves: uvicorn around the application, alone or as one of several workers."""

from __future__ import annotations

import asyncio
import signal
import socket
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn

from app.main import create_app
from app.settings import Settings
from app.web.protocol import WireProtocol


@dataclass(frozen=True, slots=True)
class Place:
    """A worker among ``count``. Each answers the others on a socket of its own in ``directory``, the name of a descriptor
    (``/proc/self/fd/N``) that all workers have inherited."""

    number: int
    count: int
    directory: Path

    def socket_of(self, number: int) -> Path:
        """Where worker ``number`` answers the others."""
        return self.directory / f"worker-{number}.sock"


def serve_on(listener: socket.socket, settings: Settings, place: Place | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then drain. ``listener`` is bound; with a ``place`` the runs and metrics of all
    workers are seen as one."""
    app = create_app(settings, run_prefix="" if place is None else f"{place.number:02x}")
    served: Any = app
    if place is not None:
        from app.web.siblings import Siblings  # it brings a client along, which one process alone does not need

        served = Siblings(app, [place.socket_of(number) for number in range(place.count)])
    http: Any = partial(WireProtocol, wire=app.state.wire) if settings.wire == "pages" else "httptools"
    config = uvicorn.Config(
        served,
        loop="uvloop",
        http=http,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout)),
    )
    # uvicorn raises the signal again once it has shut down; a stop that was asked for is no failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    _Server(config, None if place is None else place.socket_of(place.number)).run(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn's server, listening on a UNIX socket for the other workers as well."""

    def __init__(self, config: uvicorn.Config, private: Path | None) -> None:
        super().__init__(config)
        self._private = private

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._private is None:
            return
        self._private.unlink(missing_ok=True)
        self.servers.append(await asyncio.get_running_loop().create_unix_server(self._connection, str(self._private)))

    def _connection(self) -> Any:
        make: Any = self.config.http_protocol_class
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
