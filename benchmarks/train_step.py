# SPDX-License-Identifier: BSD-3-Clause
"""Speed of our training step against PyTorch's on the same device, and against the device's peak.

Compares `steps.train_step` (jitted, state donated) with PyTorch (channels_last, SGD with momentum,
binary cross-entropy; on a GPU torch.compile and bfloat16). Rounds are interleaved; each contender
has its own process and one batch that stays on the device. Our rows: `plain` is sigmoid
cross-entropy without augmentation, like the peers; `weighted` has the weighted loss of ML-Images,
`augmented` colour and rotation, `full` both. The peers are our network in PyTorch and, where timm
is installed, its resnetv2 (which has max-pooling). Their BatchNorm uses the full batch, ours groups
of 32.

    python benchmarks/train_step.py                    # 256 images per GPU in bfloat16; 4 on a CPU
    python benchmarks/train_step.py --depth 50 --variants plain weighted augmented full
    python benchmarks/train_step.py --sweep            # everything, on a GPU: an hour or more
    python benchmarks/train_step.py --quick            # ResNet-50 at 64, under a minute on a CPU

--sweep combines depths, sizes and batches with all variants. If a contender runs out of memory, all
those that shared the device with it are measured again, one at a time; the table notes that rounds
are not interleaved, and a contender that still does not fit keeps a row that says so.

FLOP/s count the work of the model, not what the compiler made of it: 3 x 2 x the
multiply-accumulates of convolutions and classifier in the forward pass (47.2 GFLOP per image for
ResNet-101 at 224). MFU is the fraction of the device's bfloat16 peak (or of --peak_tflops). 'per
CPU s' divides by the processes' CPU time: the fairer figure on a shared CPU, and the host's load
with an accelerator.
"""

import argparse
import contextlib
import datetime
import functools
import os
import statistics
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from peers.process import Answer, NotInstalledError, Peer

# Dense bfloat16 TFLOP/s from the vendors' data sheets (without sparsity), by prefix of jax's
# device_kind.
PEAK_TFLOPS = {
    "NVIDIA A100": 312,
    "NVIDIA H100 PCIe": 756,
    "NVIDIA H100": 989,
    "NVIDIA H200": 989,
    "NVIDIA L4": 121,
    "TPU v4": 275,
    "TPU v5 lite": 197,
    "TPU v5p": 459,
    "TPU v6 lite": 918,
}
BASELINE = "torch, ours"
ON_DEMAND = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # the peers share the device
VARIANTS = ("plain", "weighted", "augmented", "full")
# Messages of the libraries when the device runs out of memory: they share no exception type.
OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "OutOfMemoryError", "out of memory")
# Without it OpenMP threads spin while they wait for each other: on two cores shared with other
# programs, a PyTorch step then took 20 s instead of 4.
PATIENT = {"OMP_WAIT_POLICY": "PASSIVE"}
ROW = "{:18} {:>9} {:>8} {:>9} {:>8} {:>8} {:>6} {:>10} {:>7}"


class Contender(NamedTuple):
    """A row of the table.

    Attributes:
        name: Name of the row.
        run: Takes one measurement.
        macs: Multiply-accumulates in the forward pass of one image.
        compile_seconds: Time to trace and compile.
        memory: Bytes that the compiled program uses; None if its answers report them.
    """

    name: str
    run: Callable[[], Answer]
    macs: float
    compile_seconds: float
    memory: int | None


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--depth", type=int, choices=(50, 101), default=101)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=0, help="0: 256 per device, 4 on a CPU")
    parser.add_argument("--classes", type=int, default=11_166)
    parser.add_argument("--group_size", type=int, default=32)
    parser.add_argument(
        "--dtype", choices=("bfloat16", "float32"), help="default: bfloat16, float32 on a CPU"
    )
    parser.add_argument("--variants", nargs="+", choices=VARIANTS)
    parser.add_argument("--peers", nargs="*", choices=("ours", "timm"), default=["ours", "timm"])
    parser.add_argument("--steps", type=int, default=0, help="per round; 0: 30, two on a CPU")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--peak_tflops", type=float, help="total of all devices")
    parser.add_argument("--sweep", action="store_true", help="all --depths, --sizes and --batches")
    parser.add_argument("--depths", type=int, nargs="+", choices=(50, 101), default=[50, 101])
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 299])
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--quick", action="store_true", help="a short form for CPUs")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.depth, arguments.size = 50, 64
        arguments.depths, arguments.sizes, arguments.batches = [50], [64], [4]
    if not arguments.variants:
        arguments.variants = list(VARIANTS) if arguments.sweep else ["plain", "full"]
    return arguments


def combinations(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns the settings of every table."""
    settings = vars(arguments)
    if not arguments.sweep:
        return [settings]
    return [
        settings | {"depth": depth, "size": size, "batch": batch}
        for depth in arguments.depths
        for size in arguments.sizes
        for batch in arguments.batches
    ]


def start_ours(
    stack: contextlib.ExitStack, variants: list[str], settings: dict[str, Any]
) -> list[Contender]:
    """Returns a row for each of our variants, all in one process."""
    arguments = settings | {"variants": variants}
    peer = stack.enter_context(Peer("ours_step", arguments, environment=ON_DEMAND))

    def row(name: str) -> Contender:
        seconds, memory = peer.about["compile_seconds"][name], peer.about["memory"][name]
        run = functools.partial(peer.ask, name)
        return Contender(f"ours, {name}", run, peer.about["macs"], seconds, memory)

    return [row(name) for name in variants]


def start_torch(
    stack: contextlib.ExitStack, model: str, settings: dict[str, Any], about: dict[str, Any]
) -> list[Contender]:
    """Returns the peer's row, or none if it cannot run here."""
    if about["platform"] not in ("cpu", "gpu") or about["devices"] > 1:
        print(f"torch, {model}: skipped: {about['devices']} {about['device']}")
        return []
    arguments = settings | {"model": model, "on_gpu": about["platform"] == "gpu"}
    try:
        peer = stack.enter_context(Peer("torch_step", arguments, environment=PATIENT))
    except NotInstalledError as error:
        print(f"torch, {model}: skipped: {error}")
        return []
    print(f"torch, {model}: {peer.about['version']}, {peer.about['parameters']:,} parameters")
    macs, seconds = peer.about["macs"], peer.about["compile_seconds"]
    run = functools.partial(peer.ask, "run")
    return [Contender(f"torch, {model}", run, macs, seconds, None)]


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Raises MemoryError when a peer ends because the device is out of memory."""
    try:
        yield
    except RuntimeError as error:
        lines = [line for line in str(error).splitlines() if any(w in line for w in OUT_OF_MEMORY)]
        if lines:
            raise MemoryError(lines[-1].strip()) from error
        raise


def print_table(
    rows: list[Contender],
    answers: dict[str, list[Answer]],
    *,
    images: int,
    peak_tflops: float | None,
) -> None:
    """Prints medians over the rounds; the ratios are medians of the per-round ratios.

    Args:
        rows: Contenders in the order of the table.
        answers: Answers of each contender, by name.
        images: Number of images per answer.
        peak_tflops: Peak of the device; None if unknown.
    """
    print(
        ROW.format(
            "", "images/s", "x torch", "per CPU s", "x torch", "TFLOP/s", "MFU", "compile s", "GB"
        )
    )
    if not rows:
        return
    rates = {
        name: [images / each.values["seconds"] for each in own] for name, own in answers.items()
    }
    cpu_rates = {name: [images / each.cpu_seconds for each in own] for name, own in answers.items()}
    for row in rows:
        rate, ratio = _against_torch(rates, row.name)
        cpu_rate, cpu_ratio = _against_torch(cpu_rates, row.name)
        tflops = rate * 3 * 2 * row.macs / 1e12
        mfu = f"{tflops / peak_tflops:.1%}" if peak_tflops else "-"
        memory = row.memory or answers[row.name][-1].values["memory"]
        gigabytes = f"{memory / 1e9:.2f}" if memory else "-"
        speed = f"{rate:.2f}", ratio, f"{cpu_rate:.2f}", cpu_ratio, f"{tflops:.3f}", mfu
        print(ROW.format(row.name, *speed, f"{row.compile_seconds:.1f}", gigabytes))


def _against_torch(rates: dict[str, list[float]], name: str) -> tuple[float, str]:
    """Returns the median rate, and the median of the per-round ratios to the baseline."""
    pairs = zip(rates[name], rates.get(BASELINE, []), strict=False)
    ratios = [mine / other for mine, other in pairs]
    return statistics.median(rates[name]), f"{statistics.median(ratios):.2f}" if ratios else "-"


def print_fraction(answers: dict[str, list[Answer]]) -> None:
    """Prints the fraction of the full step taken by loss and augmentation: median of the rounds."""
    pairs = list(zip(answers.get("ours, plain", []), answers.get("ours, full", []), strict=False))
    if pairs:
        fractions = [1 - plain.values["seconds"] / full.values["seconds"] for plain, full in pairs]
        low, middle, high = min(fractions), statistics.median(fractions), max(fractions)
        print(f"loss + augmentation: {middle:.1%} of a full step ({low:.1%} to {high:.1%})")


def describe_device(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns what one of our processes reports about the device, and the defaults for it."""
    smallest = {"depth": 50, "size": 32, "variants": []}
    with Peer("ours_step", settings | smallest, environment=ON_DEMAND) as peer:
        return peer.about


def measure(
    names: list[str], settings: dict[str, Any], about: dict[str, Any]
) -> tuple[list[Contender], dict[str, list[Answer]]]:
    """Interleaves the rounds of contenders: our variants, or "torch, MODEL".

    Raises:
        MemoryError: The contenders do not fit on the device at the same time.
    """
    variants = [name for name in names if name in VARIANTS]
    with contextlib.ExitStack() as stack, memory_errors():
        rows = start_ours(stack, variants, settings) if variants else []
        for name in names:
            if name not in variants:
                rows += start_torch(stack, name.removeprefix("torch, "), settings, about)
        answers: dict[str, list[Answer]] = {row.name: [] for row in rows}
        for number in range(settings["rounds"]):
            # The first step after another process ran is slower, so the order alternates.
            for row in rows[:: -1 if number % 2 else 1]:
                answers[row.name].append(row.run())
    return rows, answers


def measure_alone(
    names: list[str], settings: dict[str, Any], about: dict[str, Any]
) -> tuple[list[Contender], dict[str, list[Answer]]]:
    """Measures one contender after another; those out of memory get a line instead of a row."""
    print("out of memory at the same time: each alone, not interleaved")
    rows: list[Contender] = []
    answers: dict[str, list[Answer]] = {}
    for name in names:
        try:
            own_rows, own_answers = measure([name], settings, about)
        except MemoryError as error:
            print(f"{name}: OUT OF MEMORY ({str(error)[:100]})")
            continue
        rows += own_rows
        answers |= own_answers
    return rows, answers


def compare(settings: dict[str, Any]) -> None:
    """Prints one table."""
    about = describe_device(settings)
    settings |= {name: about[name] for name in ("batch", "dtype", "steps")}
    print(
        f"{datetime.date.today()}, {about['devices']} {about['device']}, {os.cpu_count()} cores, "
        f"{about['version']}, load {os.getloadavg()[0]:.1f} at the start\n"
        f"ResNet-{settings['depth']} at {settings['size']}, batch {about['batch']}, "
        f"{about['dtype']}, {settings['classes']} classes, {settings['rounds']} rounds of "
        f"{about['steps']} steps"
    )
    names = [*settings["variants"], *(f"torch, {model}" for model in settings["peers"])]
    try:
        rows, answers = measure(names, settings, about)
    except MemoryError:
        rows, answers = measure_alone(names, settings, about)
    print(f"load at the end {os.getloadavg()[0]:.1f}\n")
    known = (peak for kind, peak in PEAK_TFLOPS.items() if about["device"].startswith(kind))
    peak = settings["peak_tflops"]
    if peak is None and about["dtype"] == "bfloat16":
        peak = next(known, 0) * about["devices"]
    print_table(rows, answers, images=about["batch"] * about["steps"], peak_tflops=peak)
    print_fraction(answers)


def main() -> None:
    """Prints a table for every combination."""
    for settings in combinations(parse_arguments()):
        compare(settings)
        print(flush=True)


if __name__ == "__main__":
    main()
