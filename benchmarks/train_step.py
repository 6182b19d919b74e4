# SPDX-License-Identifier: BSD-3-Clause
"""Speed of our training step against PyTorch's on the same device, and against its limit.

`steps.train_step` (jitted, state donated) against PyTorch (channels_last, SGD with momentum, binary
cross-entropy; on a GPU torch.compile and bfloat16), interleaved, each in a process of its own, on
one batch that stays on the device. Rows of ours: `plain` is sigmoid cross-entropy without
augmentation, what the peers do; `weighted` has the weighted loss of ML-Images, `augmented` colour
and rotation, `full` both. The peers: our network written in PyTorch, and timm's resnetv2 (which has
max-pooling) where timm is installed; their BatchNorm takes the whole batch, ours groups of 32.

    python benchmarks/train_step.py                    # 256 pictures a GPU in bfloat16; 4 on a CPU
    python benchmarks/train_step.py --depth 50 --variants plain weighted augmented full

FLOP/s count the model's own work: 3 x 2 x multiply-accumulates of the convolutions and the
classifier in the forward pass (47.2 GFLOP a picture for ResNet-101 at 224), whatever the compiler
made of it. MFU is their share of the device's peak in bfloat16 (or of --peak_tflops). 'per CPU s'
divides by the processes' CPU time: on a CPU that others use too it is the fairer figure, on an
accelerator it is what the host has to do.
"""

import argparse
import contextlib
import os
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

from peers.process import Answer, NotInstalledError, Peer

# Dense bfloat16 TFLOP/s of the vendors' data sheets, by the beginning of jax's device_kind.
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
# Without it OpenMP's threads spin while they wait for one another. On two cores that other programs
# used as well, a step of PyTorch then took 20 s instead of 4.
PATIENT = {"OMP_WAIT_POLICY": "PASSIVE"}
ROW = "{:18} {:>9} {:>8} {:>9} {:>8} {:>8} {:>6} {:>10} {:>7}"


class Contender(NamedTuple):
    """A row of the table.

    Attributes:
      name: Of the row.
      run: Measures once.
      macs: Multiply-accumulates of a forward pass of one picture.
      compile_seconds: To trace and compile.
      memory: Bytes that the compiled program takes; None when its answers say it.
    """

    name: str
    run: Callable[[], Answer]
    macs: float
    compile_seconds: float
    memory: int | None


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--depth", type=int, choices=(50, 101), default=101)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=0, help="0: 256 a device, 4 on a CPU")
    parser.add_argument("--classes", type=int, default=11_166)
    parser.add_argument("--group_size", type=int, default=32)
    parser.add_argument(
        "--dtype", choices=("bfloat16", "float32"), help="default: bfloat16, float32 on a CPU"
    )
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=("plain", "weighted", "augmented", "full"),
        default=["plain", "full"],
    )
    parser.add_argument("--peers", nargs="*", choices=("ours", "timm"), default=["ours", "timm"])
    parser.add_argument("--steps", type=int, default=0, help="a round; 0: 30, one on a CPU")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peak_tflops", type=float, help="of all devices together")
    return parser.parse_args()


def our_rows(peer: Peer) -> list[Contender]:
    """One for each variant."""

    def row(name: str) -> Contender:
        seconds, memory = peer.about["compile_seconds"][name], peer.about["memory"][name]
        return Contender(
            f"ours, {name}", lambda: peer.ask(name), peer.about["macs"], seconds, memory
        )

    return [row(name) for name in peer.about["compile_seconds"]]


def start_torch(
    stack: contextlib.ExitStack, model: str, settings: dict[str, Any], about: dict[str, Any]
) -> list[Contender]:
    """The peer's row; none when it cannot run here."""
    if about["platform"] not in ("cpu", "gpu") or about["devices"] > 1:
        print(f"torch, {model}: left out: {about['devices']} {about['device']}")
        return []
    arguments = settings | {"model": model, "on_gpu": about["platform"] == "gpu"}
    try:
        peer = stack.enter_context(Peer("torch_step", arguments, environment=PATIENT))
    except NotInstalledError as error:
        print(f"torch, {model}: left out: {error}")
        return []
    print(f"torch, {model}: {peer.about['version']}, {peer.about['parameters']:,} parameters")
    macs, seconds = peer.about["macs"], peer.about["compile_seconds"]
    return [Contender(f"torch, {model}", lambda: peer.ask("run"), macs, seconds, None)]


def print_table(
    rows: list[Contender],
    answers: dict[str, list[Answer]],
    *,
    pictures: int,
    peak_tflops: float | None,
) -> None:
    """Medians over the rounds; the ratios are medians of the rounds' ratios.

    Args:
      rows: In the order of the table.
      answers: By name.
      pictures: In each answer.
      peak_tflops: Of the device; None: unknown.
    """
    print(
        ROW.format(
            "", "images/s", "x torch", "per CPU s", "x torch", "TFLOP/s", "MFU", "compile s", "GB"
        )
    )
    rates = {
        name: [pictures / each.values["seconds"] for each in own] for name, own in answers.items()
    }
    cpu_rates = {
        name: [pictures / each.cpu_seconds for each in own] for name, own in answers.items()
    }
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
    """The median rate, and the median of the rounds' ratios to the baseline."""
    pairs = zip(rates[name], rates.get(BASELINE, []), strict=False)
    ratios = [mine / other for mine, other in pairs]
    return statistics.median(rates[name]), f"{statistics.median(ratios):.2f}" if ratios else "-"


def main() -> None:
    """Starts the contenders, runs the rounds, prints the table."""
    arguments = parse_arguments()
    settings = vars(arguments)
    on_demand = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # the peers share the device
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(Peer("ours_step", settings, environment=on_demand))
        about = ours.about
        settings |= {name: about[name] for name in ("batch", "dtype", "steps")}
        print(
            f"{about['devices']} {about['device']}, {os.cpu_count()} cores; ResNet-"
            f"{arguments.depth} at {arguments.size}, batch {about['batch']}, {about['dtype']}, "
            f"{arguments.classes} classes, {arguments.rounds} rounds of {about['steps']} steps\n"
            f"ours: {about['version']}, {about['parameters']:,} parameters"
        )
        rows = our_rows(ours)
        for model in arguments.peers:
            rows += start_torch(stack, model, settings, about)
        answers: dict[str, list[Answer]] = {row.name: [] for row in rows}
        for _ in range(arguments.rounds):
            for row in rows:
                answers[row.name].append(row.run())
        print(f"load at the end {os.getloadavg()[0]:.1f}\n")
    known = (peak for kind, peak in PEAK_TFLOPS.items() if about["device"].startswith(kind))
    peak = arguments.peak_tflops
    if peak is None and about["dtype"] == "bfloat16":
        peak = next(known, 0) * about["devices"]
    pictures = about["batch"] * about["steps"]
    print_table(rows, answers, pictures=pictures, peak_tflops=peak)
    held = answers[rows[0].name][-1].values["peak_bytes"]
    if held:
        print(f"ours, all variants loaded: {held / 1e9:.2f} GB at most on the first device")


if __name__ == "__main__":
    main()
