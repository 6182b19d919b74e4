# SPDX-License-Identifier: BSD-3-Clause
"""Our input: ArrayRecord, Grain, libjpeg-turbo, OpenCV."""

from importlib.metadata import version

import numpy as np

from mlimages_jax.data import pipeline
from mlimages_jax.data.dataset import DataSet, parse_record
from mlimages_jax.data.images import jpeg, views
from peers.serve import arguments, serve_batches


def main() -> None:
    """Serves batches of `folder`."""
    given = arguments()
    if given.get("whole"):
        jpeg._jpeg = None  # type: ignore[assignment]
    elif not jpeg.is_compiled():
        raise SystemExit("the C extension was not built, see mlimages_jax/data/images/jpeg.py")
    data = DataSet.open(given["folder"])
    records = data.records("train")
    settings = {"area": tuple(given["area"]), "interpolation": given["interpolation"]}

    def save_cuts() -> None:
        view = views.TrainingView(given["size"], flip=False, **settings)
        jpegs = [parse_record(records[i]).jpeg for i in range(len(given["boxes"]))]
        # The parent drew the boxes with the same generators, so the crops are equal.
        cuts = [view(jpeg, np.random.default_rng(i)) for i, jpeg in enumerate(jpegs)]
        np.save(given["cuts"], np.stack(cuts))

    serve_batches(
        pipeline.training_batches(
            [records],
            views.TrainingView(given["size"], **settings),
            batch_size=given["batch"],
            max_labels=data.max_labels,
            seed=0,
            num_threads=given["workers"],
        ),
        batch_size=given["batch"],
        warm_up=given["warm_up"],
        seconds=given["seconds"],
        version=f"grain {version('grain')}",
        save_cuts=save_cuts,
    )


if __name__ == "__main__":
    main()
