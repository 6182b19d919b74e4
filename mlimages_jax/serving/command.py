# SPDX-License-Identifier: BSD-3-Clause
"""The command `mlimages serve`."""

import dataclasses
import functools
from typing import Literal

from tyro.conf import Positional

from mlimages_jax.data.images.decode import MAX_PIXELS
from mlimages_jax.inference.pretrained import load
from mlimages_jax.serving.limits import Limits, ServingError


def serve(
    model: Positional[str],
    /,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    classes: str | None = None,
    image_size: int | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    thresholds: Literal["none"] | None = None,
    features: str | None = None,
    max_batch: int = 32,
    delay_ms: float = 5.0,
    queue: int = 256,
    max_images: int = 32,
    max_image_mb: float = 20.0,
    max_request_mb: float = 64.0,
    max_pixels: int = MAX_PIXELS,
    body_seconds: float = 60.0,
    max_connections: int = 2_000,
    drain_delay: float = 0.0,
    drain_seconds: int = 30,
) -> None:
    """Tag images over HTTP, with a page to try it.

        mlimages serve workdirs/quickstart
        curl -F files=@docs/images/yellow_disc.jpg 'http://127.0.0.1:8000/v1/tags?k=5'

    Images of all requests are run together in batches. /healthz says when it is ready, /metrics is
    for Prometheus, /openapi.json describes the requests, and / is the page. After SIGTERM it
    answers the requests that have arrived and exits with code 0. There is no password: everyone who
    reaches the port can use it. By default that is this machine only; with another --host, put a
    proxy in front.

    Args:
        model: a workdir, its checkpoints folder, one of its steps, or a safetensors file.
        host: address to listen on; 0.0.0.0: all addresses of this machine.
        port: port to listen on; 0: any free one.
        classes: the class list (dictionary.txt); default: the checkpoint's.
        image_size: side of the cropped images in pixels; default: the checkpoint's.
        dtype: type of the activations; bfloat16 is faster on accelerators.
        thresholds: none: ignore the thresholds in the checkpoint's workdir.
        features: folder of `mlimages export` with this model; /v1/tags?nearest=8 and the page then
            give the most similar of its images.
        max_batch: maximum number of images in a batch.
        delay_ms: milliseconds that an image waits for others to share its batch.
        queue: maximum number of images between arrival and result; further requests get 503.
        max_images: maximum number of images in a request.
        max_image_mb: maximum size of an image file, in MB.
        max_request_mb: maximum size of a request, in MB.
        max_pixels: maximum number of pixels of an image, width times height.
        body_seconds: seconds in which a request must have arrived.
        max_connections: maximum number of connections; further ones get 503.
        drain_delay: seconds after SIGTERM in which connections are still accepted.
        drain_seconds: seconds for the last answers after that.
    """
    try:
        from mlimages_jax.serving import server  # its libraries are those of the extra
        from mlimages_jax.serving.nearest import open_nearest
        from mlimages_jax.serving.service import Service
    except ModuleNotFoundError as error:
        raise ServingError(f"{error}: pip install -e '.[serve]' in the clone") from error
    limits = Limits(
        images=max_images,
        image_bytes=int(max_image_mb * 1e6),
        request_bytes=int(max_request_mb * 1e6),
        body_seconds=body_seconds,
        pixels=max_pixels,
        queue=queue,
    )
    if max_batch < 1:
        raise ServingError(f"--max-batch={max_batch}: give 1 or more")
    if delay_ms < 0:
        raise ServingError(f"--delay-ms={delay_ms:g}: give 0 or more")
    with server.bound_socket(host, port) as bound:
        loaded = load(
            model, classes=classes, image_size=image_size, dtype=dtype, thresholds=thresholds
        )
        tell = functools.partial(print, flush=True)
        tell(f"{loaded}\n{server.address_of(bound)}/healthz says when it is ready")
        service = Service(
            dataclasses.replace(loaded, max_batch=max_batch),
            delay=delay_ms / 1e3,
            limits=limits,
            nearest=open_nearest(features, loaded) if features else None,
            tell=tell,
        )
        server.create_server(
            service,
            max_connections=max_connections,
            drain_seconds=drain_seconds,
            drain_delay=drain_delay,
        ).run(sockets=[bound])
    if service.failure:
        raise service.failure
