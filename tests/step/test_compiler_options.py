# SPDX-License-Identifier: BSD-3-Clause
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlimages_jax.step.compiler_options import compiler_options


class _Device:
    platform = "tpu"


@pytest.fixture(autouse=True)
def optimized():
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def test_a_cpu_compiles_with_them():
    options = compiler_options(jax.devices())
    assert options
    program = jax.jit(lambda x: jnp.tanh(x @ x), compiler_options=options)
    x = np.linspace(-1, 1, 9, dtype=np.float32).reshape(3, 3)
    np.testing.assert_allclose(program(x), np.tanh(x @ x), rtol=1e-6)


def test_other_platforms_have_none():
    assert not compiler_options([_Device()])


def test_a_wish_for_fewer_optimizations_holds():
    jax.config.update("jax_disable_most_optimizations", True)
    assert not compiler_options(jax.devices())
