# SPDX-License-Identifier: BSD-3-Clause
"""NVIDIA DALI's pipeline on the CPU: image files, fused decode and crop, resize, flip.

Needs only DALI and NumPy, so that it can run in another interpreter.
"""

from pathlib import Path
from typing import Any

import numpy as np
import nvidia.dali as dali
from nvidia.dali import fn, pipeline_def, types

from peers.serve import Values, arguments, serve_batches

ASPECT = (0.75, 1.33)  # as ours
SHUFFLED = 1024  # images in the shuffle buffer


def resized(image: Any, size: int) -> Any:
    """Resizes without smoothing first, as tf.data does."""
    return fn.resize(
        image, size=[size, size], interp_type=types.DALIInterpType.INTERP_LINEAR, antialias=False
    )


@pipeline_def
def training(options: Values) -> tuple[Any, Any]:
    """Returns random crops, uint8 [B, size, size, 3], and a label each."""
    files = [str(path) for path in sorted(Path(options["images"]).iterdir())]
    jpeg, label = fn.readers.file(files=files, random_shuffle=True, initial_fill=SHUFFLED)
    image = fn.decoders.image_random_crop(
        jpeg,
        device="cpu",
        random_area=list(options["area"]),
        random_aspect_ratio=list(ASPECT),
        num_attempts=100,
    )
    return fn.flip(resized(image, options["size"]), horizontal=fn.random.coin_flip()), label


@pipeline_def
def given_crop(size: int) -> Any:
    """Returns the box of an image that it is fed, resized."""
    jpeg = fn.external_source(name="jpeg")
    start, shape = fn.external_source(name="start"), fn.external_source(name="shape")
    image = fn.decoders.image_slice(
        jpeg,
        start,
        shape,
        device="cpu",
        axis_names="HW",
        normalized_anchor=False,
        normalized_shape=False,
    )
    return resized(image, size)


def main() -> None:
    """Serves batches of the images in `images`."""
    options = arguments()
    images = Path(options["images"])

    def save_crops() -> None:
        pipeline = given_crop(
            options["size"],
            batch_size=1,
            num_threads=1,
            device_id=None,
            exec_async=False,
            exec_pipelined=False,
        )
        pipeline.build()
        crops = []
        for name, (top, left, height, width) in options["boxes"]:
            pipeline.feed_input("jpeg", [np.frombuffer((images / name).read_bytes(), np.uint8)])
            pipeline.feed_input("start", [np.array([top, left], np.float32)])
            pipeline.feed_input("shape", [np.array([height, width], np.float32)])
            crops.append(pipeline.run()[0].as_array()[0])
        np.save(options["crops"], np.stack(crops))

    pipeline = training(
        options, batch_size=options["batch"], num_threads=options["workers"], device_id=None, seed=0
    )
    pipeline.build()
    serve_batches(
        iter(pipeline.run, None),
        batch_size=options["batch"],
        warm_up=options["warm_up"],
        seconds=options["seconds"],
        version=f"DALI {dali.__version__}",
        save_crops=save_crops,
    )


if __name__ == "__main__":
    main()
