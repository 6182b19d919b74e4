# SPDX-License-Identifier: BSD-3-Clause
"""Our input: ArrayRecord, Grain, libjpeg-turbo, OpenCV."""

from importlib.metadata import version

import numpy as np

from mlimages_jax.data import pipeline
from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.images import jpeg, views
from mlimages_jax.data.records import parse_record
from peers.serve import arguments, serve_batches


def main() -> None:
    """Serves batches of `folder`."""
    options = arguments()
    if options.get("whole"):  # as an installation without a C compiler decodes
        jpeg._jpeg = None  # type: ignore[assignment]  # a module
    elif not jpeg.is_compiled():
        raise SystemExit("the C extension was not built, see mlimages_jax/data/images/jpeg.py")
    data = DataSet.open(options["folder"])
    records = data.records("train")
    settings = {"area": tuple(options["area"]), "interpolation": options["interpolation"]}

    def save_crops() -> None:
        view = views.TrainingView(options["size"], flip=False, **settings)
        jpegs = [parse_record(records[i]).jpeg for i in range(len(options["boxes"]))]
        # The parent drew the boxes with the same generators, so the crops are equal.
        crops = [view(jpeg, np.random.default_rng(i)) for i, jpeg in enumerate(jpegs)]
        np.save(options["crops"], np.stack(crops))

    serve_batches(
        pipeline.training_batches(
            [records],
            views.TrainingView(options["size"], **settings),
            batch_size=options["batch"],
            max_labels=data.max_labels,
            seed=0,
            num_threads=options["workers"],
            num_workers=options["workers"] if options.get("processes") else 0,
        ),
        batch_size=options["batch"],
        warm_up=options["warm_up"],
        seconds=options["seconds"],
        version=f"grain {version('grain')}",
        save_crops=save_crops,
    )


if __name__ == "__main__":
    main()
