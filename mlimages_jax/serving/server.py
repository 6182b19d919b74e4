# SPDX-License-Identifier: BSD-3-Clause
"""Runs the application until SIGTERM or Ctrl-C, then answers what has arrived."""

import contextlib
import socket
import time
from types import FrameType

import uvicorn

from mlimages_jax.files import open_files
from mlimages_jax.serving.app import create_app
from mlimages_jax.serving.connections import ImpatientConnection
from mlimages_jax.serving.limits import ServingError
from mlimages_jax.serving.service import Service

_KEEP_ALIVE = 5  # seconds
_BACKLOG = 2048
_OTHER_DESCRIPTORS = 256  # beside those of connections


class DrainingServer(uvicorn.Server):
    """Drains at the first signal and ends with exit code 0; a second signal ends it at once.

    Args:
        config: uvicorn's settings.
        service: Says at /healthz that the server is draining.
        drain_delay: Seconds between the signal and the end of accepting connections: load balancers
            need some to notice.
    """

    def __init__(self, config: uvicorn.Config, service: Service, *, drain_delay: float = 0.0):
        super().__init__(config)
        self._service = service
        self._drain_delay = drain_delay
        self._end: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begins to drain."""
        # uvicorn's own handler records the signal and raises it again at the end, so that the
        # process would end by SIGTERM; an orderly stop is exit code 0.
        if self._end is None:
            self._service.drain()
            self._end = time.monotonic() + self._drain_delay
        elif self.should_exit:
            self.force_exit = True
        else:
            self._end = time.monotonic()

    async def on_tick(self, counter: int) -> bool:
        """Returns whether to stop accepting connections; uvicorn asks ten times a second."""
        is_due = self._end is not None and time.monotonic() >= self._end
        self.should_exit = self.should_exit or is_due or self._service.failure is not None
        return await super().on_tick(counter)


def bound_socket(host: str, port: int) -> socket.socket:
    """Takes a port, before the model is loaded.

    Raises:
        ServingError: The port is taken, or the address is not one of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        # Else a restart fails while connections of the previous server are in TIME_WAIT. A system
        # that does not know the option starts without it.
        with contextlib.suppress(OSError):
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise ServingError(
            f"--host={host} --port={port}: {error.strerror or error}; give another one"
        ) from error
    return bound


def address_of(bound: socket.socket) -> str:
    """Returns the address to open in a browser."""
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def create_server(
    service: Service,
    *,
    max_connections: int = 2_000,
    drain_seconds: int = 30,
    drain_delay: float = 0.0,
) -> DrainingServer:
    """Returns a server that does not run yet.

    Args:
        service: The service, not started yet.
        max_connections: Requests on more connections get 503.
        drain_seconds: Time for the answers after a signal.
        drain_delay: See `DrainingServer`.
    """
    open_files.allow(max_connections + _OTHER_DESCRIPTORS)
    config = uvicorn.Config(
        create_app(service),
        http=ImpatientConnection,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=max_connections,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=drain_seconds,
    )
    return DrainingServer(config, service, drain_delay=drain_delay)
