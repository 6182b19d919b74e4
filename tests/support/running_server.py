# SPDX-License-Identifier: BSD-3-Clause
"""A server on a real port, in a thread."""

import contextlib
import io
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
from PIL import Image

from mlimages_jax.serving import server
from mlimages_jax.serving.limits import Limits
from mlimages_jax.serving.nearest import NearestImages
from mlimages_jax.serving.service import Service
from tests.support.served_model import ColourModel

BROWN = (204, 102, 51)  # animal 0.8, dog 0.4, poodle 0.2


def png(colour: tuple[int, int, int] = BROWN, size: tuple[int, int] = (8, 8)) -> bytes:
    """An image of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def wait_until(is_so: Callable[[], Any]) -> None:
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end, "waited for nothing"
        time.sleep(0.01)


class Running:
    """A server in a thread; what a signal does is called by hand."""

    def __init__(
        self,
        model: Any = None,
        *,
        limits: Limits | None = None,
        nearest: NearestImages | None = None,
        **options: Any,
    ):
        self.model = ColourModel() if model is None else model
        ready = threading.Event()
        self.service = Service(
            self.model, delay=0.0, limits=limits, nearest=nearest, tell=lambda _: ready.set()
        )
        self.socket = server.bound_socket("127.0.0.1", 0)
        self.address = server.address_of(self.socket)
        self.server = server.create_server(self.service, **options)
        self.thread = threading.Thread(
            target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True
        )
        self.thread.start()
        assert ready.wait(60)
        wait_until(lambda: self.server.started)

    def ask_in_thread(self, files: dict[str, Any]) -> Callable[[], httpx.Response]:
        """Sends an image, and returns when the network has it, with what ends with the answer."""
        self.model.gate.clear()
        answers: list[httpx.Response] = []
        client = threading.Thread(
            target=lambda: answers.append(
                httpx.post(f"{self.address}/v1/tags", files=files, timeout=60)
            )
        )
        client.start()
        wait_until(lambda: self.service.images.used)

        def answer() -> httpx.Response:
            client.join(60)
            return answers[0]

        return answer


@contextlib.contextmanager
def running(model: Any = None, **options: Any) -> Iterator[Running]:
    """A running server, which is ended afterwards."""
    served = Running(model, **options)
    try:
        yield served
    finally:
        if isinstance(served.model, ColourModel):
            served.model.gate.set()
        served.server.should_exit = served.server.force_exit = True
        served.thread.join(60)
        served.socket.close()
