# SPDX-License-Identifier: BSD-3-Clause
"""The server's metrics for Prometheus, at /metrics."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one server; all names begin with mlimages_, except those of the process."""

    def __init__(self) -> None:
        # Not the global registry, which refuses the second server of a process (of a test, say).
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Histogram(
            "mlimages_request_seconds",
            "Time from the head of a request to the end of its answer",
            ("route", "status"),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._images = Counter(
            "mlimages_images",
            "Images by result: ok, or the reason why they were not read",
            ("result",),
            registry=self._registry,
        )
        self._batches = Histogram(
            "mlimages_batch_seconds",
            "Time of a batch on the device, by its compiled size",
            ("size",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._batch_images = Histogram(
            "mlimages_batch_images",
            "Images in a batch, without padding",
            buckets=_SIZES,
            registry=self._registry,
        )

    def watch(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Adds a gauge that is read when Prometheus asks."""
        Gauge(f"mlimages_{name}", meaning, registry=self._registry).set_function(value)

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Counts an answered request."""
        self._requests.labels(route, str(status)).observe(seconds)

    def count_image(self, result: str) -> None:
        """Counts an image."""
        self._images.labels(result).inc()

    def count_batch(self, images: int, size: int, seconds: float) -> None:
        """Counts a batch; see `Batcher`."""
        self._batches.labels(str(size)).observe(seconds)
        self._batch_images.observe(images)

    def text(self) -> bytes:
        """Returns all metrics in Prometheus's text format."""
        return generate_latest(self._registry)
