# SPDX-License-Identifier: BSD-3-Clause
"""GPUs to compile for without having one.

XLA's CUDA plugin (`pip install jax-cuda12-plugin[with-cuda]` in jax's version) describes a GPU by a
text, of which the figures here are those of XLA's own list (openxla/xla,
xla/backends/gpu/target_config/specs). Nothing can be tried out, so XLA's autotuner is off: products
and convolutions are calls of cuBLAS and cuDNN with their default algorithms.
"""

import os
from typing import Any

from jax.experimental import topologies

_DESCRIPTION = """
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {shared}
  threads_per_core_limit: 2048
  core_count: {cores}
  fpus_per_core: {units}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth}
  l2_cache_size: {cache}
  clock_rate_ghz: {clock}
  device_memory_size: {memory}
  shared_memory_per_block_optin: {optin}
  cuda_compute_capability {{ major: {major} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
runtime_version: {{ major: 12 minor: 8 patch: 0 }}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 7 }}
device_description_str: "{title}"
"""
GPUS: dict[str, dict[str, Any]] = {
    "h100": {
        "title": "NVIDIA H100 80GB HBM3",
        "major": 9,
        "cores": 132,
        "units": 128,
        "clock": 1.98,
        "memory": 84_929_347_584,
        "bandwidth": 3_352_320_000_000,
        "cache": 52_428_800,
        "shared": 233_472,
        "optin": 232_448,
    }
}


def prepare() -> None:
    """Sets what the plugin reads when JAX loads it; call it before the first use of JAX."""
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # it would ask the absent driver
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_autotune_level=0".strip()


def devices(name: str) -> list[Any]:
    """Returns one such GPU."""
    described = topologies.get_topology_desc(
        name, "cuda", target_config=_DESCRIPTION.format(**GPUS[name]), topology="1x1x1"
    )
    return list(described.devices)
