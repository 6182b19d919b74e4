# SPDX-License-Identifier: BSD-3-Clause
"""Options of XLA for our programs: on CPUs the defaults compile slowly and gain nothing."""

import functools
from collections.abc import Iterable

import jax

_ON_CPU: dict[str, str | bool] = {
    "xla_backend_optimization_level": "1",  # LLVM's, default 3; the kernels are library calls
    "xla_cpu_use_fusion_emitters": False,  # the newer way to compile fusions, through MLIR
}


def compiler_options(devices: Iterable[jax.Device]) -> dict[str, str | bool]:
    """Returns the options to compile a program for devices of one kind with.

    With these, a training step on a CPU compiles in 60% of the time and runs 5 to 10% faster, and
    initial values, whose bits stay the same, compile in a third of the time
    (docs/benchmarks/start_up.md). Other platforms have no such options.
    """
    on_cpu = next(iter(devices)).platform == "cpu"
    # JAX_DISABLE_MOST_OPTIMIZATIONS is a wish for still fewer, which ours would overrule.
    if not on_cpu or jax.config.read("jax_disable_most_optimizations"):
        return {}
    return _ON_CPU if _are_known() else {}


@functools.cache
def _are_known() -> bool:
    """Tells whether XLA has the options: 0.12 removed the older way to compile fusions."""
    try:
        with jax.default_device(jax.devices("cpu")[0]):
            jax.jit(lambda: 0).lower().compile(compiler_options=_ON_CPU)
    except jax.errors.JaxRuntimeError:
        return False
    return True
