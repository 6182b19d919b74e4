# SPDX-License-Identifier: BSD-3-Clause
"""Reads the images of a request, from three kinds of bodies, within limits.

    multipart/form-data      a part with a file name for each image, as browsers and curl -F send
    application/json         {"images": [{"data": "base64 of the file", "name": "a.jpg"}, ...]}
    image/*, octet-stream    the file itself

Everything stays in memory: the file system may be read-only. Nothing is fetched from elsewhere.
"""

import asyncio
import base64
import binascii
from collections.abc import AsyncGenerator
from typing import NamedTuple

import pydantic
from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from mlimages_jax.files.escaping import one_line
from mlimages_jax.serving.limits import Held, Limits, RefusedError
from mlimages_jax.serving.schemas import JsonImages

KINDS = "multipart/form-data with files, application/json, or the bytes of one image (image/jpeg)"

_NAME_CHARACTERS = 200  # of a file name that are repeated in the answer
_FIELDS = 16  # parts without a file name, which are ignored


class Upload(NamedTuple):
    """A file of a request, not decoded yet."""

    name: str
    data: bytes


async def read_uploads(request: Request, limits: Limits, held: Held) -> list[Upload]:
    """Returns the files of a request, at least one.

    Args:
        request: The request; its body has not been read.
        limits: Limits of one request.
        held: Grows with every byte that arrives.

    Raises:
        RefusedError: The request is too large or too slow, or is not understood.
        QuotaError: Other requests hold too many bytes at the moment.
    """
    _check_length(request, limits)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = _chunks(request, limits, held)
    try:
        async with asyncio.timeout(limits.body_seconds):
            if kind == "multipart/form-data":
                uploads = await _of_form(request, body, limits)
            elif kind == "application/json":
                uploads = await asyncio.to_thread(_of_json, await _joined(body))
            elif kind.startswith("image/") or kind == "application/octet-stream":
                uploads = [Upload("image", await _joined(body))]
            else:
                raise RefusedError(415, "unsupported", f"Content-Type {kind!r}: send {KINDS}")
    except TimeoutError:
        message = f"the body did not arrive within {limits.body_seconds:g} seconds"
        raise RefusedError(408, "too_slow", message) from None
    if not uploads:
        raise RefusedError(422, "no_image", f"the request has no image: send {KINDS}")
    if len(uploads) > limits.images:
        message = f"{len(uploads)} images: at most {limits.images} are allowed in a request"
        raise RefusedError(413, "too_many", message)
    return [Upload(one_line(name)[:_NAME_CHARACTERS], data) for name, data in uploads]


def _check_length(request: Request, limits: Limits) -> None:
    """Refuses by the header what is too large, before the client sends it."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.request_bytes:
        raise _too_large(limits)


def _too_large(limits: Limits) -> RefusedError:
    return RefusedError(
        413,
        "too_large",
        f"the request is too large: at most {limits.request_bytes / 1e6:g} MB are allowed, and "
        f"{limits.image_bytes / 1e6:g} MB for an image",
    )


async def _chunks(request: Request, limits: Limits, held: Held) -> AsyncGenerator[bytes, None]:
    received = 0
    async for chunk in request.stream():
        received += len(chunk)  # Content-Length is missing from chunked bodies
        if received > limits.request_bytes:
            raise _too_large(limits)
        held.add(len(chunk))
        yield chunk


async def _joined(body: AsyncGenerator[bytes, None]) -> bytes:
    return b"".join([chunk async for chunk in body])


class _InMemory(MultiPartParser):
    spool_max_size = 1 << 62  # larger files would go to a temporary folder


async def _of_form(
    request: Request, body: AsyncGenerator[bytes, None], limits: Limits
) -> list[Upload]:
    parser = _InMemory(request.headers, body, max_files=limits.images, max_fields=_FIELDS)
    try:
        form = await parser.parse()
    except (MultiPartException, FormParserError) as error:  # older Starlettes pass the second on
        raise RefusedError(400, "malformed", f"multipart/form-data: {error}") from error
    files = [one for _, one in form.multi_items() if isinstance(one, UploadFile)]
    uploads = [Upload(file.filename or "image", await file.read()) for file in files]
    await form.close()
    return uploads


def _of_json(body: bytes) -> list[Upload]:
    try:
        images = JsonImages.model_validate_json(body).images
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        message = f"JSON: {f'{where}: ' if where else ''}{first['msg']}"
        raise RefusedError(422, "malformed", message) from error
    return [
        Upload(image.name, _decoded(image.data, position)) for position, image in enumerate(images)
    ]


def _decoded(text: str, position: int) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        message = f"images.{position}.data is not base64 of a file: {error}"
        raise RefusedError(422, "malformed", message) from error
