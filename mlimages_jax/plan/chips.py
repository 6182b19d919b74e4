# SPDX-License-Identifier: BSD-3-Clause
"""Specifications of accelerators, each from a public source; unsourced figures are omitted.

Sources, as of November 2026:
  [v4] cloud.google.com/tpu/docs/v4, and [v3], [v5e], [v5p], [v6e] next to it: memory and its
    bandwidth, peak, chips per pod and host, for v5e and v5p the network of a host. Where they state
    a chip's "bidirectional inter-chip interconnect bandwidth", half of it leaves the chip: 400 GB/s
    (v5e), 800 (v6e), 1,200 (v5p). For v3 they state the all-reduce bandwidth of a pod, 340 TB/s;
    for v4 and v5e that is a chip's links one way, times the chips of a pod.
  [tpus] jax-ml.github.io/scaling-book/tpus, tables under "Key Takeaways": links of v4 (6 of 45 GB/s
    each way), chips per host, and 25 GB/s per host as the typical network of a data centre.
  [gpus] jax-ml.github.io/scaling-book/gpus, "Summary of GPU specs" and "Networking": memory and its
    bandwidth, NVLink's bandwidth each way, GPUs per node, network bandwidth of a node of H100 or
    B200, and B200's peak.
  [dense] ttsugriy.github.io/distributed-training-book/appendices/hardware-assumptions: dense
    bfloat16 peaks (NVIDIA prints twice these, "with sparsity") and the H100's memory bandwidth.
"""

from typing import NamedTuple

from mlimages_jax.plan import PlanError, kinds


class Chip(NamedTuple):
    """One accelerator and what connects it to others; bandwidths are one way.

    Attributes:
        title: Name for display.
        memory: Bytes of memory.
        flops: Peak dense bfloat16 operations per second.
        bandwidth: Memory bandwidth in bytes per second.
        link: Bytes per second from a chip to the others in its domain.
        domain: Number of chips connected by such links: a node of GPUs, a pod of TPUs.
        host_chips: Number of chips per host.
        network: Bytes per second from a host to other domains; None if no source was found.
        sources: Keys into the module's docstring.
        kind: What is assumed of such chips beyond their specifications.
    """

    title: str
    memory: float
    flops: float
    bandwidth: float
    link: float
    domain: int
    host_chips: int
    network: float | None
    sources: str
    kind: kinds.Kind


_GIB = 2**30
CHIPS = {
    "v3": Chip(
        "TPU v3", 32 * _GIB, 123e12, 900e9, 340e12 / 1_024, 1_024, 4, None, "[v3]", kinds.TPU_V3
    ),
    "v4": Chip(
        "TPU v4", 32 * _GIB, 275e12, 1.2e12, 6 * 45e9, 4_096, 4, 25e9, "[v4] [tpus]", kinds.TPU_V3
    ),
    "v5e": Chip("TPU v5e", 16e9, 197e12, 819e9, 200e9, 256, 8, 25e9, "[v5e]", kinds.TPU_V5E),
    "v5p": Chip(
        "TPU v5p", 95 * _GIB, 459e12, 2.765e12, 600e9, 8_960, 4, 25e9, "[v5p] [tpus]", kinds.TPU_V5P
    ),
    "v6e": Chip(
        "TPU v6e", 32e9, 918e12, 1.638e12, 400e9, 256, 8, 25e9, "[v6e] [tpus]", kinds.TPU_V5E
    ),
    "a100": Chip(
        "NVIDIA A100 SXM", 80e9, 312e12, 2.0e12, 300e9, 8, 8, None, "[dense] [gpus]", kinds.GPU
    ),
    "h100": Chip(
        "NVIDIA H100 SXM", 80e9, 989e12, 3.35e12, 450e9, 8, 8, 400e9, "[dense] [gpus]", kinds.GPU
    ),
    "h200": Chip(
        "NVIDIA H200 SXM", 141e9, 989e12, 4.8e12, 450e9, 8, 8, None, "[dense] [gpus]", kinds.GPU
    ),
    "b200": Chip("NVIDIA B200", 192e9, 2.3e15, 8.0e12, 900e9, 8, 8, 400e9, "[gpus]", kinds.GPU),
}


def find(name: str) -> Chip:
    """Returns the chip of that name.

    Raises:
        PlanError: The chip is unknown; the message lists the known ones.
    """
    if name not in CHIPS:
        raise PlanError(f"chip={name!r} is none of {', '.join(CHIPS)}")
    return CHIPS[name]


def collective_seconds(chip: Chip, devices: int, *, moved: float) -> float | None:
    """Returns the time of a reduce-scatter or all-gather at the stated bandwidths, without latency.

    Assumes a ring that uses all links of a device (a torus with wrap-around, or a switch), in which
    every device sends moved * (n - 1) / n bytes. Several domains do the same with each other over
    their hosts' networks at the same time, so the slower level counts. An all-reduce is a
    reduce-scatter followed by an all-gather and moves twice its bytes.

    Args:
        chip: Chip that gives the bandwidths.
        devices: Number of devices that take part.
        moved: Bytes of the full array that is scattered or gathered.

    Returns:
        Seconds; None if the network between domains is unknown.
    """
    inside = min(devices, chip.domain)
    seconds = moved * (inside - 1) / inside / chip.link
    if devices <= chip.domain:
        return seconds
    if chip.network is None:
        return None
    domains = devices / chip.domain
    leaving = chip.network * chip.domain / chip.host_chips  # bytes per second and domain
    return max(seconds, moved * (domains - 1) / domains / leaving)
