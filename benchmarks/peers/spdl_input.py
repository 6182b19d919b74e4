# SPDX-License-Identifier: BSD-3-Clause
"""SPDL (Meta): threads that decode with FFmpeg, whose filters crop and resize.

Needs only SPDL, NumPy and the libraries of FFmpeg, so that it can run in another interpreter.
"""

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import spdl.io
from spdl.pipeline import PipelineBuilder

from peers.serve import Values, arguments, serve_batches

ASPECT = (0.75, 1.33)  # as ours
BUFFERED = 2  # batches


def decoded(data: bytes, box: tuple[int, int, int, int], *, size: int, flip: bool) -> Any:
    """Decodes an image and resizes the box (top, left, height, width)."""
    top, left, height, width = box
    filters = f"crop={width}:{height}:{left}:{top}:exact=1,scale={size}:{size}:flags=bilinear"
    description = f"{filters}{',hflip' * flip},format=rgb24"
    return spdl.io.decode_packets(spdl.io.demux_image(data), filter_desc=description)


def random_box(
    rng: np.random.Generator, height: int, width: int, area: list[float]
) -> tuple[int, int, int, int]:
    """Draws a crop by the rule of `transforms.sample_crop`, with an area of its own."""
    for _ in range(100):
        ratio = rng.uniform(*ASPECT)
        lowest = (area[0] * height * width / ratio) ** 0.5
        highest = min((area[1] * height * width / ratio) ** 0.5, height, width / ratio)
        if lowest <= highest:
            tall = int(rng.uniform(lowest, highest))
            wide = int(tall * ratio)
            top, left = (rng.random(2) * (height - tall, width - wide)).astype(int).tolist()
            return top, left, tall, wide
    return 0, 0, height, width


def batches(options: Values, files: list[Path]) -> Iterator[np.ndarray]:
    """Yields endless batches, uint8 [B, size, size, 3]."""
    rng = np.random.default_rng(0)
    size, count = options["size"], options["batch"]

    def drawn() -> Iterator[tuple[Path, int]]:
        while True:
            yield files[rng.integers(len(files))], int(rng.integers(2**62))

    def load(item: tuple[Path, int]) -> Any:
        path, seed = item
        own = np.random.default_rng(seed)
        data = path.read_bytes()
        packets = spdl.io.demux_image(data)
        box = random_box(own, packets.height, packets.width, options["area"])
        return decoded(data, box, size=size, flip=own.random() < 0.5)

    def joined(frames: list[Any]) -> np.ndarray:
        return np.array(spdl.io.to_numpy(spdl.io.convert_frames(frames)))

    pipeline = (
        PipelineBuilder()
        .add_source(drawn())
        .pipe(load, concurrency=options["workers"])
        .aggregate(count)
        .pipe(joined)
        .add_sink(BUFFERED)
        .build(num_threads=options["workers"])
    )
    with pipeline.auto_stop():
        yield from pipeline


def main() -> None:
    """Serves batches of the images in `images`."""
    options = arguments()
    images = Path(options["images"])

    def save_crops() -> None:
        frames = [
            decoded((images / name).read_bytes(), tuple(box), size=options["size"], flip=False)
            for name, box in options["boxes"]
        ]
        np.save(options["crops"], np.array(spdl.io.to_numpy(spdl.io.convert_frames(frames))))

    serve_batches(
        batches(options, sorted(images.iterdir())),
        batch_size=options["batch"],
        warm_up=options["warm_up"],
        seconds=options["seconds"],
        version=f"spdl {version('spdl')}",
        save_crops=save_crops,
    )


if __name__ == "__main__":
    main()
