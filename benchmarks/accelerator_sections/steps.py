# SPDX-License-Identifier: BSD-3-Clause
"""Rates of the training step: against PyTorch, by batch size, by network, by idea, by flag."""

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import train_step
from peers.process import Peer

from accelerator_sections import ENVIRONMENT, Section, Settings, table

# Compiler flags to try; each is timed with the full step.
FLAGS = {
    "latency hiding": "--xla_gpu_enable_latency_hiding_scheduler=true",
    "no command buffers": "--xla_gpu_enable_command_buffer=",
    "no Triton products": "--xla_gpu_enable_triton_gemm=false",
    "deterministic": "--xla_gpu_deterministic_ops=true",
    "no nondeterministic operations": "--xla_gpu_exclude_nondeterministic_ops=true",
}
HEADER = ["", "images/s", "x", "TFLOP/s", "MFU", "compile s", "GB"]


def ours(settings: Settings) -> Iterator[Section]:
    """Measures our four variants, with interleaved rounds in one process."""
    options = settings.step(variants=list(train_step.VARIANTS), rounds=settings.rounds)
    yield _interleaved(options["variants"], options, known={})


def torch(settings: Settings) -> Iterator[Section]:
    """Measures our network in PyTorch, then timm's, since both do not fit on the device at once.

    Ratios are relative to the rates in the output folder, if the section `step` left them there.
    """
    options = settings.step(rounds=settings.rounds)
    path = Path(settings.output) / "step.json"
    known = json.loads(path.read_text())["values"]["rates"] if path.exists() else {}
    tables, rates = [], dict(known)
    for name in ("torch, ours", "torch, timm"):
        found = _interleaved([name], options, known=rates)
        rates |= found.values["rates"]
        tables.append(found.table)
        yield Section("\n\n".join(tables), {"rates": rates})


def _interleaved(names: list[str], options: dict[str, Any], *, known: dict[str, float]) -> Section:
    """Measures contenders that share the device; known rates of others give further ratios."""
    about = train_step.describe_device(options)
    rows, answers = train_step.measure(names, options, about)
    images = options["batch"] * options["steps"]
    measured = {
        name: statistics.median(images / each.values["seconds"] for each in own)
        for name, own in answers.items()
    }
    rates = known | measured
    lines = []
    for row in rows:
        memory = row.memory or answers[row.name][-1].values["memory"] or 0
        lines.append(
            _line(row.name, rates, about, base="ours, plain", macs=row.macs)
            + [f"{row.compile_seconds:.0f}", f"{memory / 1e9:.1f}"]
        )
    return Section(table([*HEADER[:2], "x ours, plain", *HEADER[3:]], lines), {"rates": measured})


def by_batch(settings: Settings) -> Iterator[Section]:
    """Measures the full step at other batch sizes, until one does not fit."""
    wanted = {f"batch {size}": settings.step(batch=size) for size in settings.batches}
    yield from _alone(wanted, base=None)


def by_network(settings: Settings) -> Iterator[Section]:
    """Measures ResNet-50, 299 pixels, and rematerialised activations."""
    wanted = {
        f"ResNet-{settings.depth}, remat": settings.step(remat=True),
        "ResNet-50": settings.step(depth=50),
        "299 pixels": settings.step(size=299, batch=max(settings.batch // 2, 1)),
    }
    yield from _alone(wanted, base=None)


def by_idea(settings: Settings) -> Iterator[Section]:
    """Measures each idea of `peers.step_ideas`, and combinations, against the current step."""
    from peers import step_ideas

    wanted = {"as it is": settings.step()}
    names = [name for name in step_ideas.IDEAS if name != "one-pass statistics"]  # GPUs have them
    wanted |= {name: settings.step(ideas=[name]) for name in names}
    wanted["BatchNorm's backward, stem and products"] = settings.step(
        ideas=["own BatchNorm backward", "stem by blocks", "1x1 as matrix products"]
    )
    yield from _alone(wanted, base="as it is")


def by_flag(settings: Settings) -> Iterator[Section]:
    """Measures the full step with other compiler flags."""
    wanted = {"default flags": settings.step()}
    wanted |= {name: settings.step(xla_flags=flags) for name, flags in FLAGS.items()}
    yield from _alone(wanted, base="default flags")


def _alone(wanted: dict[str, dict[str, Any]], *, base: str | None) -> Iterator[Section]:
    """Times contenders one after the other; they compile in parallel, with cached programs.

    Each process exits before the next is timed, since a process keeps the memory it has used.
    """
    started = {
        name: Peer(
            "ours_step",
            options,
            environment=ENVIRONMENT | {"XLA_FLAGS": options.get("xla_flags", "")},
        )
        for name, options in wanted.items()
    }
    ready: dict[str, Peer] = {}
    lines = []
    for name, peer in started.items():  # all compile before any is timed
        try:
            with train_step.memory_errors():
                ready[name] = peer.__enter__()
        except (MemoryError, RuntimeError) as error:
            lines.append(_failure(name, error))
    rates: dict[str, float] = {}
    for name, peer in ready.items():
        options = wanted[name]
        try:
            with train_step.memory_errors():
                rounds = [peer.ask("full").values["seconds"] for _ in range(3)]
        except (MemoryError, RuntimeError) as error:
            lines.append(_failure(name, error))
            continue
        finally:
            peer.__exit__()
        rates[name] = options["batch"] * options["steps"] / statistics.median(rounds)
        line = _line(name, rates, peer.about, base=base, macs=peer.about["macs"])
        seconds, memory = peer.about["compile_seconds"]["full"], peer.about["memory"]["full"]
        lines.append([*line, f"{seconds:.0f}", f"{memory / 1e9:.1f}"])
        yield Section(table(HEADER, lines), {"rates": rates})


def _failure(name: str, error: Exception) -> list[str]:
    """Returns a row that says why there is no number."""
    return [name, f"{type(error).__name__}: {str(error).splitlines()[-1][:90]}"]


def _line(
    name: str, rates: dict[str, float], about: dict[str, Any], *, base: str | None, macs: float
) -> list[str]:
    """Returns name, rate, ratio, TFLOP/s and fraction of the peak."""
    rate = rates[name]
    ratio = f"{rate / rates[base]:.3f}" if base in rates else "-"
    tflops = rate * 3 * 2 * macs / 1e12  # forward, and twice that for the two gradients
    known = train_step.PEAK_TFLOPS.items()
    peak = next((top for kind, top in known if about["device"].startswith(kind)), None)
    mfu = f"{tflops / peak:.1%}" if peak else "-"
    return [name, f"{rate:.1f}", ratio, f"{tflops:.1f}", mfu]
