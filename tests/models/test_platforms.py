# SPDX-License-Identifier: BSD-3-Clause
"""Programs have the forms of the platform that they are traced for."""

import types

import jax
import jax.numpy as jnp
import pytest

from mlimages_jax.models import batch_norm, platforms
from mlimages_jax.step import gradient_norm

TPU = types.SimpleNamespace(platform="tpu")


def program(function, x):
    return str(jax.make_jaxpr(lambda x: function(x))(x))  # a new function: nothing is cached


@pytest.mark.parametrize(
    ("function", "x"),
    [
        (batch_norm._moments, jnp.ones((1, 4, 2, 2, 3))),
        (gradient_norm.gradient_norm, jnp.ones((5, 70))),
    ],
)
def test_programs_have_the_forms_of_absent_devices(function, x):
    here = program(function, x)
    with platforms.tracing_for([TPU]):
        there = program(function, x)
        with platforms.tracing_for(jax.devices("cpu")):
            assert program(function, x) == here
    assert program(function, x) == here != there


def test_the_form_is_that_of_one_pass_on_tpus():
    x = jnp.ones((1, 4, 2, 2, 3))
    with platforms.tracing_for([TPU]):
        assert program(batch_norm._moments, x) == program(batch_norm.one_pass_moments, x)
