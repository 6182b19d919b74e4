# SPDX-License-Identifier: BSD-3-Clause
"""Options of XLA for our programs: on CPUs the defaults compile slowly and gain nothing."""

from collections.abc import Iterable

import jax

_ON_CPU: dict[str, str | bool] = {
    "xla_backend_optimization_level": "1",  # LLVM's, default 3; the kernels are library calls
}


def compiler_options(devices: Iterable[jax.Device]) -> dict[str, str | bool]:
    """Returns the options to compile a program for devices of one kind with.

    With these, a training step on a CPU compiles in 85% of the time, and initial values, whose bits
    stay the same, in 45% (quickstart) to 80% (ResNet-101), see docs/benchmarks/start_up.md. Other
    platforms have no such options.
    """
    on_cpu = next(iter(devices)).platform == "cpu"
    # JAX_DISABLE_MOST_OPTIMIZATIONS is a wish for still fewer, which ours would overrule.
    if not on_cpu or jax.config.read("jax_disable_most_optimizations"):
        return {}
    return _ON_CPU
