# SPDX-License-Identifier: BSD-3-Clause
"""Cost of a checkpoint of the full network: pause and duration of a save, a restore, and its size.

The state is that of ResNet-101 with 11,166 classes, momentum and the counts of the weighted loss
(65 million parameters, 523 MB). It is filled with random numbers, which do not compress. `ours` is
`Checkpoints`. The peers write the same arrays one after the other, as a training without Orbax
would: `numpy.savez`, `flax.serialization.to_bytes` to a file, and `torch.save` where torch is
installed. Pause is the time the training loop is blocked; for the peers that is the entire save.
Files are read back from the page cache. The time that a restore spends on verifying checksums is
reported below the table.

    python benchmarks/checkpoints.py                  # compared with a step of 4 images at 224
    python benchmarks/checkpoints.py --quick          # two rounds, without that step
    python benchmarks/checkpoints.py --batch 256 --dtype bfloat16     # on an accelerator
"""

import argparse
import importlib.util
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
from peers.ours_step import Variant, make_optimizer, random_batch
from peers.setting import where_and_when

from mlimages_jax.checkpoints import array_digests
from mlimages_jax.checkpoints.compatibility import by_name
from mlimages_jax.checkpoints.manager import Checkpoints
from mlimages_jax.distributed import sharding
from mlimages_jax.models.resnet import STAGE_SIZES, ResNet
from mlimages_jax.step.state import TrainState, abstract_state, bytes_by_part

ROW = "{:26} {:>9} {:>9} {:>10} {:>10} {:>8}"
CLASSES = 11_166


class Times(NamedTuple):
    """One save and one restore.

    Attributes:
        pause: Seconds that the training loop is blocked.
        whole: Seconds until the checkpoint is complete.
        restore: Seconds until all arrays are on the device.
        size: Bytes on disk.
    """

    pause: float
    whole: float
    restore: float
    size: int


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=4, help="images per step; 0: no step")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; default: temporary")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.batch = 2, 0
    return arguments


def random_state(model: ResNet) -> tuple[TrainState, TrainState]:
    """Returns a state of random numbers, and its shapes and shardings."""
    abstract = abstract_state(
        model, make_optimizer(model, 64), mesh=sharding.make_mesh(), image_size=64, count_groups=1
    )
    rng = np.random.default_rng(0)

    def fill(leaf: Any) -> jax.Array:
        values = 0.01 * rng.standard_normal(leaf.shape, np.float32)
        return jax.device_put(values.astype(leaf.dtype), leaf.sharding)

    return jax.block_until_ready(jax.tree.map(fill, abstract)), abstract


def ours(folder: Path, state: TrainState, abstract: TrainState) -> Times:
    """Saves and restores with `Checkpoints`."""
    start = time.perf_counter()
    with Checkpoints(folder) as saved:
        begin = time.perf_counter()
        saved.save(state, step=1, config={})
        pause = time.perf_counter() - begin
    # Leaving the block waited for the threads that write.
    whole = time.perf_counter() - start
    with Checkpoints(folder) as saved:
        start = time.perf_counter()
        jax.block_until_ready(saved.restore(abstract))
        return Times(pause, whole, time.perf_counter() - start, size_of(folder))


def seconds_of_checksums(state: TrainState) -> float:
    """Returns how long a restore takes to verify all checksums; the median of five."""
    arrays = {name: np.asarray(leaf) for name, leaf in by_name(state).items()}
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        for array in arrays.values():
            array_digests.crc32c(array)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def with_numpy(folder: Path, state: TrainState, abstract: TrainState) -> Times:
    """Saves and restores with `numpy.savez`, one entry per leaf."""
    path = folder / "state.npz"

    def write() -> None:
        leaves = jax.tree.leaves(jax.device_get(state))
        np.savez(path, **{str(i): leaf for i, leaf in enumerate(leaves)})

    def read() -> Any:
        with np.load(path) as file:
            return [file[str(i)] for i in range(len(file.files))]

    return written_whole(folder, write, read, abstract)


def with_flax(folder: Path, state: TrainState, abstract: TrainState) -> Times:
    """Saves and restores with `flax.serialization`."""
    path = folder / "state.msgpack"

    def write() -> None:
        path.write_bytes(flax.serialization.to_bytes(jax.device_get(state)))

    def read() -> Any:
        tree = flax.serialization.from_bytes(jax.tree.map(lambda _: 0, state), path.read_bytes())
        return jax.tree.leaves(tree)

    return written_whole(folder, write, read, abstract)


def with_torch(folder: Path, state: TrainState, abstract: TrainState) -> Times:
    """Saves and restores with `torch.save`, from arrays on the host."""
    import torch  # an optional peer

    path = folder / "state.pt"

    def write() -> None:
        leaves = jax.tree.leaves(jax.device_get(state))
        # Copied, since torch warns of memory that is read-only, as jax's arrays on the host are.
        torch.save([torch.from_numpy(np.array(leaf, copy=True)) for leaf in leaves], path)

    def read() -> Any:
        return [tensor.numpy() for tensor in torch.load(path)]

    return written_whole(folder, write, read, abstract)


def written_whole(
    folder: Path, write: Callable[[], None], read: Callable[[], Any], abstract: TrainState
) -> Times:
    """Measures a peer, whose save blocks until it is complete."""
    folder.mkdir()
    start = time.perf_counter()
    write()
    whole = time.perf_counter() - start
    start = time.perf_counter()
    places = [leaf.sharding for leaf in jax.tree.leaves(abstract)]
    jax.block_until_ready([jax.device_put(*pair) for pair in zip(read(), places, strict=True)])
    return Times(whole, whole, time.perf_counter() - start, size_of(folder))


def size_of(folder: Path) -> int:
    """Returns the bytes of all files under a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def seconds_of_a_step(arguments: argparse.Namespace, model: ResNet, state: TrainState) -> float:
    """Returns the time of a plain step on a batch that stays on the device; median of three."""
    batch = random_batch(batch=arguments.batch, size=arguments.size, classes=CLASSES)
    variant = Variant(
        "plain", group_size=min(32, arguments.batch), initial=state, batch=batch, model=model,
        optimizer=make_optimizer(model, arguments.size),
    )  # fmt: skip
    return statistics.median(variant.seconds(1) for _ in range(3))


def main() -> None:
    """Measures in interleaved rounds; prints medians, also of the per-round ratios."""
    arguments = parse_arguments()
    print(f"{where_and_when()}; {arguments.rounds} rounds")
    model = ResNet(
        CLASSES, stage_sizes=STAGE_SIZES[101], group_size=min(32, arguments.batch or 32),
        dtype=jnp.dtype(arguments.dtype),
    )  # fmt: skip
    state, abstract = random_state(model)
    megabytes = sum(bytes_by_part(abstract).values()) / 1e6
    print(f"{len(jax.tree.leaves(abstract))} arrays, {megabytes:.1f} MB")
    savers = {"ours": ours, "numpy.savez": with_numpy, "flax.serialization": with_flax}
    if importlib.util.find_spec("torch"):
        savers["torch.save"] = with_torch
    rounds: list[dict[str, Times]] = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as work:
        for _ in range(arguments.rounds):
            rounds.append({})
            for name, saver in savers.items():
                folder = Path(work) / "saved"
                rounds[-1][name] = saver(folder, state, abstract)
                shutil.rmtree(folder)
    print(ROW.format("", "pause ms", "x numpy", "whole s", "restore s", "MB"))
    for name in savers:
        times = Times(
            *(
                statistics.median(column)
                for column in zip(*(one[name] for one in rounds), strict=True)
            )
        )
        ratio = statistics.median(one[name].pause / one["numpy.savez"].pause for one in rounds)
        shown = f"{times.pause * 1e3:.0f}", f"{ratio:.3f}", f"{times.whole:.2f}"
        print(ROW.format(name, *shown, f"{times.restore:.2f}", f"{times.size / 1e6:.1f}"))
    checksums = seconds_of_checksums(state)
    restore = statistics.median(one["ours"].restore for one in rounds)
    print(
        f"checksums of all arrays: {checksums * 1e3:.0f} ms, {checksums / restore:.3f} of a restore"
    )
    if arguments.batch:
        step = seconds_of_a_step(arguments, model, state)
        pause = statistics.median(one["ours"].pause for one in rounds)
        print(
            f"a step of {arguments.batch} images at {arguments.size} px, {arguments.dtype}: "
            f"{step * 1e3:.0f} ms; the pause of ours is {pause / step:.3f} of it"
        )
    print(f"load at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
