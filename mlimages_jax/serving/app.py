# SPDX-License-Identifier: BSD-3-Clause
"""The routes: tags, features, health, metrics, and the demo page."""

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import mlimages_jax
from mlimages_jax.data.images.decode import BadImage
from mlimages_jax.inference.tagging import Tag, rounded
from mlimages_jax.serving import page
from mlimages_jax.serving.batcher import Outputs
from mlimages_jax.serving.limits import QuotaError, RefusedError
from mlimages_jax.serving.schemas import (
    ErrorAnswer,
    FeaturesAnswer,
    Health,
    JsonImage,
    ModelAnswer,
    TagsAnswer,
)
from mlimages_jax.serving.service import MAX_NEAREST, MAX_TAGS, Service
from mlimages_jax.serving.uploads import Upload, read_uploads

# HTTP status of a request without a readable image; 422 for all other reasons.
_STATUS_OF_REASON = {"too_large": 413, "not_an_image": 415, "unsupported": 415}
_SHOWN_ERRORS = 5

_FILE = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
# By hand: `read_uploads` reads bodies within limits, so FastAPI sees no parameters to describe.
_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"files": {"type": "array", "items": _FILE["schema"]}},
                "required": ["files"],
            }
        },
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {"images": {"type": "array", "items": JsonImage.model_json_schema()}},
                "required": ["images"],
                "additionalProperties": False,
            }
        },
        "image/*": _FILE,
        "application/octet-stream": _FILE,
    },
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorAnswer, "description": "The body is malformed"},
    408: {"model": ErrorAnswer, "description": "The body did not arrive in time"},
    413: {"model": ErrorAnswer, "description": "The request, a file or an image is too large"},
    415: {"model": ErrorAnswer, "description": "Not an image, or of a format that is not read"},
    422: {"model": ErrorAnswer, "description": "No image can be read, or a parameter is wrong"},
    503: {
        "model": ErrorAnswer,
        "description": "The queue is full, or the network is still being compiled",
        "headers": {"Retry-After": {"schema": {"type": "integer"}}},
    },
}


def create_app(service: Service) -> FastAPI:
    """Returns the ASGI application; it starts the service and closes it.

    Args:
        service: The service, not started yet.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()  # in a thread, so that /healthz answers while the network is compiled
        yield
        service.close()

    app = FastAPI(
        title="mlimages_jax",
        version=mlimages_jax.__version__,
        description="Tags and features of images.",
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from other servers
        redoc_url=None,
    )
    _add_errors(app)
    _add_outputs(app, service)
    _add_model(app, service)
    _add_state(app, service)
    app.add_middleware(_Counted, service=service)
    return app


def _add_outputs(app: FastAPI, service: Service) -> None:
    """Adds the routes that run the network on images."""

    @app.post(
        "/v1/tags",
        response_model=TagsAnswer,
        responses=_REFUSALS,
        openapi_extra={"requestBody": _BODY},
    )
    async def tags(
        request: Request,
        k: Annotated[
            int | None,
            Query(
                ge=1,
                le=MAX_TAGS,
                description="most tags of an image; default: 1 if the model predicts one class; "
                "with a threshold for every class, all that reach theirs; else 5",
            ),
        ] = None,
        threshold: Annotated[
            float | None,
            Query(ge=0, le=1, description="least probability; default: that of each class"),
        ] = None,
        nearest: Annotated[
            int,
            Query(ge=0, le=MAX_NEAREST, description="most images of the export that are like it"),
        ] = 0,
    ) -> JSONResponse:
        """Tags of one image or several, best first."""
        if nearest and service.nearest is None:
            message = "nearest: this server has no export; --features=FOLDER gives it one"
            raise RefusedError(422, "parameter", message)
        uploads, results = await _results(service, request)
        good = [one for one in results if not isinstance(one, BadImage)]
        found = iter(await service.tags(good, k=k, threshold=threshold))
        near = iter(await service.nearest_images(good, k=nearest))
        limits = service.class_thresholds

        def value(_: Outputs) -> dict[str, Any]:
            shown = {"tags": [_tag(tag, limits) for tag in next(found)]}
            images = [image._asdict() for image in next(near)]
            return shown | ({"nearest": images} if nearest else {})

        return _answer(uploads, results, "tags", value)

    @app.post(
        "/v1/features",
        response_model=FeaturesAnswer,
        responses=_REFUSALS,
        openapi_extra={"requestBody": _BODY},
    )
    async def features(request: Request) -> JSONResponse:
        """Pooled features of one image or several, the classifier's input."""
        uploads, results = await _results(service, request)
        return _answer(
            uploads, results, "features", lambda row: {"features": row["features"].tolist()}
        )


def _add_model(app: FastAPI, service: Service) -> None:
    """Adds the routes that describe the model and show the images of its export."""

    @app.get("/v1/model")
    async def model() -> ModelAnswer:
        """Describes the model and the limits of requests."""
        network, limits = service.model.network, service.limits
        return ModelAnswer(
            classes=network.num_classes,
            image_size=service.model.image_size,
            loss=service.model.loss,
            features=network.stage_widths[-1],
            has_thresholds=service.class_thresholds is not None,
            max_images=limits.images,
            max_image_bytes=limits.image_bytes,
            max_request_bytes=limits.request_bytes,
            max_tags=MAX_TAGS,
            exported=len(service.nearest) if service.nearest else 0,
        )

    @app.get(
        "/v1/exported/{row}",
        response_class=Response,
        responses={
            200: {"content": {"image/jpeg": {}}, "description": "A small JPEG"},
            404: {"model": ErrorAnswer, "description": "No such image, or it is gone"},
            422: _REFUSALS[422],
        },
    )
    async def exported(row: Annotated[int, Path(ge=0, lt=2**63)]) -> Response:
        """A small JPEG of an image of the export."""
        kept = {"Cache-Control": "private, max-age=3600", **page.NO_SNIFF}
        return Response(await service.thumbnail(row), media_type="image/jpeg", headers=kept)


def _add_state(app: FastAPI, service: Service) -> None:
    """Adds the routes for the state of the server, and the page."""

    @app.get(
        "/healthz",
        response_model=Health,
        responses={503: {"model": Health, "description": "Not ready, or about to stop"}},
    )
    async def healthz() -> JSONResponse:
        """Answers 200 if requests should be sent here, else 503."""
        status = 200 if service.state == "ready" else 503
        return JSONResponse({"status": service.state}, status)

    @app.get("/metrics", response_class=Response, include_in_schema=False)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def demo() -> HTMLResponse:
        return HTMLResponse(page.html(), headers=page.HEADERS)


async def _results(
    service: Service, request: Request
) -> tuple[list[Upload], list[Outputs | BadImage]]:
    """Reads the images of a request and runs them.

    Raises:
        RefusedError: The request has no result.
    """
    service.check_can_answer()
    with service.images.hold() as images, service.bytes.hold() as held:
        try:
            service.images.check()  # a full queue refuses before the body is sent
            # A slow client holds no place in the queue, only what it has sent.
            uploads = await read_uploads(request, service.limits, held)
            images.add(len(uploads))
        except QuotaError:
            message = "too many images are waiting: send the request again later"
            raise RefusedError(503, "busy", message, retry_after=service.retry_after) from None
        return uploads, await service.outputs(uploads)


def _answer(
    uploads: Sequence[Upload],
    results: Sequence[Outputs | BadImage],
    name: str,
    value: Callable[[Outputs], dict[str, Any]],
) -> JSONResponse:
    """Returns the answer with one entry an image, or an error if all of them are bad.

    Args:
        uploads: The images.
        results: Their outputs.
        name: The key of what was asked for, which is empty for a bad image.
        value: Returns the values of a good one by key.

    Raises:
        RefusedError: No image can be read.
    """
    rows: list[dict[str, Any]] = []
    bad: list[tuple[str, BadImage]] = []
    for upload, result in zip(uploads, results, strict=True):
        if isinstance(result, BadImage):
            bad.append((upload.name, result))
            problem = {"reason": result.reason, "message": str(result)}
            rows.append({"name": upload.name, name: [], "error": problem})
        else:
            rows.append({"name": upload.name, **value(result), "error": None})
    if len(bad) == len(results):
        reason = bad[0][1].reason
        message = "; ".join(f"{name}: {error}" for name, error in bad[:_SHOWN_ERRORS])
        raise RefusedError(_STATUS_OF_REASON.get(reason, 422), reason, message)
    return JSONResponse({"images": rows})


def _tag(tag: Tag, limits: np.ndarray | None) -> dict[str, Any]:
    return {
        "index": tag.index,
        "id": tag.id,
        "name": tag.name,
        "score": rounded(tag.score),
        "path": tag.path,
        "threshold": None if limits is None else float(limits[tag.index]),
    }


def _add_errors(app: FastAPI) -> None:
    """Gives all errors the form of `ErrorAnswer`."""

    def answer(status: int, reason: str, message: str, headers: Any = None) -> JSONResponse:
        return JSONResponse({"error": {"reason": reason, "message": message}}, status, headers)

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> JSONResponse:
        retry = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
        return answer(error.status, error.reason, error.message, retry)

    @app.exception_handler(RequestValidationError)
    async def wrong(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return answer(422, "parameter", f"{first['loc'][-1]}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        return answer(error.status_code, "http", str(error.detail), error.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> JSONResponse:
        return answer(400, "gone", "the client closed the connection")

    @app.exception_handler(Exception)
    async def unexpected(_: Request, __: Exception) -> JSONResponse:
        return answer(500, "internal", "an error of the server: its log has the details")


class _Counted:
    """Counts requests with their status and duration."""

    def __init__(self, app: ASGIApp, service: Service):
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Starlette answers unexpected exceptions outside of all middleware, so it stays 500 then.
        begin, status = time.perf_counter(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            # The route, not the path: every new path would be a time series in Prometheus.
            route = getattr(scope.get("route"), "path", "other")
            seconds = time.perf_counter() - begin
            self._service.metrics.count_request(route, status, seconds)
