# SPDX-License-Identifier: BSD-3-Clause
"""Images per second of a feature export, against the network alone on the same machine.

The network alone runs the export's compiled program on one synthetic batch that stays on the
devices. The export reads files, decodes and crops them, runs the network and writes the features;
its rate covers the time from the first read to the last write. Both take turns in one process;
ratios are medians of the per-round ratios. Each row reports what limited the export: in
`slow network` the network is slower than the decoder, in `slow decoder` it is faster.

    python benchmarks/export.py                      # crops of four photographs
    python benchmarks/export.py --images FOLDER    # any files
    python benchmarks/export.py --stages 3 4 23 3 --count 20000 --batch 256   # on an accelerator

On a CPU the decoder competes with the network for the same cores, which the ratio includes.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from input_pipeline import PHOTOGRAPHS, crop_images
from peers.setting import load_config

from mlimages_jax.checkpoints import manager
from mlimages_jax.data.images.views import EvaluationView
from mlimages_jax.distributed import sharding
from mlimages_jax.features.export import export_task
from mlimages_jax.inference.batch_predict import fitting_batch
from mlimages_jax.inference.network_outputs import network_outputs
from mlimages_jax.models.resnet import STAGE_WIDTHS, ResNet
from mlimages_jax.settings import Export
from mlimages_jax.step.state import TrainState

ROW = "{:14} {:>6} {:>11} {:>11} {:>7} {:>9} {:>9} {:>9}"


class Case(NamedTuple):
    """A row of the table.

    Attributes:
        name: Name of the row.
        model: Network to run.
        size: Side of the crops, in pixels.
    """

    name: str
    model: ResNet
    size: int


class Measurement(NamedTuple):
    """One round.

    Attributes:
        alone: Images per second of the network alone.
        export: Images per second of the export.
        reading: Fraction of the export's time spent waiting for decoded images.
        network: Fraction of the export's time spent waiting for the network.
        limit: The bottleneck that the export reported.
    """

    alone: float
    export: float
    reading: float
    network: float
    limit: str


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=Path, help="a folder of images, used as they are")
    parser.add_argument(
        "--photographs", type=Path, default=PHOTOGRAPHS, help="large JPEGs to take crops from"
    )
    parser.add_argument("--count", type=int, default=128, help="images to crop")
    parser.add_argument("--stages", type=int, nargs=4, default=(2, 2, 2, 2), help="blocks in each")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--format", default="parquet", help="format of the feature files")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def save_checkpoint(model: ResNet, folder: Path) -> None:
    """Saves an untrained network for the export to load."""
    tree = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    state = TrainState(jnp.int32(0), tree["params"], tree["batch_stats"], None, None)
    with manager.Checkpoints(folder) as saved:
        saved.save(state, step=0, config={})


def export_config(
    arguments: argparse.Namespace, case: Case, images: Path, checkpoint: Path
) -> Export:
    """Returns the settings of configs/export_features.py with these changes."""
    return load_config(
        "export_features",
        {
            "checkpoint": str(checkpoint), "input": str(images), "exif_orientation": True,
            "view.name": "short_side", "view.size": case.size, "format": arguments.format,
            "dtype": arguments.dtype, "batch_size": arguments.batch,
            "num_threads": arguments.threads, "max_errors": 0,
        },
    )  # fmt: skip


class Alone:
    """The export's program on one synthetic batch.

    Args:
        case: What to run.
        checkpoint: Where the weights are stored.
        batch_size: Images per batch, over all devices.
        dtype: Type of the activations.
    """

    def __init__(self, case: Case, checkpoint: Path, *, batch_size: int, dtype: str):
        mesh = sharding.make_mesh()
        model = case.model.clone(dtype=jnp.dtype(dtype))
        self._weights = manager.load_weights(checkpoint, sharding.replicated(mesh))
        place = sharding.by_example(mesh)
        black = EvaluationView(case.size, "short_side").empty
        images = np.random.default_rng(0).integers(0, 256, (batch_size, *black.shape), np.uint8)
        self._images = jax.device_put(images, place)
        self._step = jax.jit(
            partial(network_outputs, model=model, names=("features",)), out_shardings=place
        )
        self.batch_size = batch_size
        self.rate(batches=1)  # compiles

    def rate(self, *, batches: int) -> float:
        """Returns images per second."""
        start = time.perf_counter()
        outputs = [self._step(self._weights, self._images) for _ in range(batches)]
        jax.block_until_ready(outputs)
        return batches * self.batch_size / (time.perf_counter() - start)


def measure(alone: Alone, config: Export, *, batches: int) -> Measurement:
    """Measures one round."""
    rate = alone.rate(batches=batches)
    with tempfile.TemporaryDirectory() as workdir:
        speed = export_task.export(config, workdir)["speed"]
    return Measurement(
        rate,
        speed["images_per_second"],
        speed["waiting_for_images"],
        speed["waiting_for_network"],
        speed["limit"],
    )


def print_row(case: Case, rounds: list[Measurement]) -> None:
    """Prints medians over the rounds."""

    def median(name: str) -> Any:
        return statistics.median(getattr(one, name) for one in rounds)

    ratio = statistics.median(one.export / one.alone for one in rounds)
    limits = statistics.mode(one.limit for one in rounds)
    waits = f"{median('reading'):.0%}", f"{median('network'):.0%}"
    rates = f"{median('alone'):.1f}", f"{median('export'):.1f}"
    print(ROW.format(case.name, f"{case.size}", *rates, f"{ratio:.3f}", *waits, limits))


def main() -> None:
    """Makes images and checkpoints, runs the rounds and prints the table."""
    arguments = parse_arguments()
    tiny = ResNet(10, stage_sizes=(1, 1, 1, 1), stage_widths=(16, 32, 64, 128), stem_width=8)
    slow = ResNet(10, stage_sizes=tuple(arguments.stages), stage_widths=STAGE_WIDTHS)
    cases = [Case("slow network", slow, arguments.size), Case("slow decoder", tiny, 64)]
    print(f"load at the start {os.getloadavg()[0]:.1f}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        images = arguments.images or work / "images"
        if not arguments.images:
            images.mkdir()
            crop_images(arguments.photographs, images, arguments.count)
        count = sum(1 for path in images.rglob("*") if path.is_file())
        batch_size = fitting_batch(arguments.batch, images=count, mesh=sharding.make_mesh())
        rows = []
        for case in cases:
            checkpoint = work / case.name.replace(" ", "_")
            save_checkpoint(case.model, checkpoint)
            config = export_config(arguments, case, images, checkpoint)
            alone = Alone(case, checkpoint, batch_size=batch_size, dtype=arguments.dtype)
            batches = -(-count // batch_size)
            rounds = [measure(alone, config, batches=batches) for _ in range(arguments.rounds)]
            rows.append((case, rounds))
    devices = jax.devices()
    print(
        f"{len(devices)} {devices[0].device_kind}, {os.cpu_count()} cores; {count} images, batch "
        f"{batch_size}, {arguments.dtype}, blocks {tuple(arguments.stages)}, {arguments.rounds} "
        f"rounds; load at the end {os.getloadavg()[0]:.1f}\n"
    )
    print(ROW.format("", "size", "alone", "export", "ratio", "reading", "network", "limit"))
    for case, rounds in rows:
        print_row(case, rounds)


if __name__ == "__main__":
    main()
