# SPDX-License-Identifier: BSD-3-Clause
"""Alternative ways to compute the same training step, to be measured before one is adopted.

Each idea replaces a function of the model for the lifetime of the process. `accelerator.py` times
the step with and without it, `step_program.py` compiles both. An idea that is faster on
accelerators moves into the model; the others stay here as a record of what was tried. `no rotation`
computes another step: it bounds what a cheaper rotation could gain.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name

from mlimages_jax.models import batch_norm, resnet
from mlimages_jax.step import augment

POSITIONS = (1, 2, 3)  # axes of [G, n, H, W, C] over which statistics are computed
EXPAND = (slice(None), None, None, None)  # [G, C] -> [G, 1, 1, 1, C]


@jax.custom_vjp
def _standardise(groups: Array, epsilon: float) -> tuple[Array, Array, Array]:
    """Returns (x - mean) / deviation in float32, the mean and the variance [G, C]."""
    mean, var = batch_norm.one_pass_moments(groups)
    return (
        (groups.astype(jnp.float32) - mean[EXPAND]) * lax.rsqrt(var + epsilon)[EXPAND],
        mean,
        var,
    )


def _standardise_forward(groups: Array, epsilon: float) -> Any:
    out = _standardise(groups, epsilon)
    return out, (groups, out[1], lax.rsqrt(out[2] + epsilon))


def _standardise_backward(saved: Any, gradients: Any) -> tuple[Array, None]:
    """Returns (dy - mean(dy) - y mean(dy y)) / deviation: two sums, then one pass."""
    groups, mean, scale = saved
    dy = gradients[0]
    y = (groups.astype(jnp.float32) - mean[EXPAND]) * scale[EXPAND]
    first, second = dy.mean(POSITIONS), (dy * y).mean(POSITIONS)
    dx = (dy - first[EXPAND] - y * second[EXPAND]) * scale[EXPAND]
    return dx.astype(groups.dtype), None


_standardise.defvjp(_standardise_forward, _standardise_backward)


class OwnBackwardNorm(batch_norm.GroupBatchNorm):
    """GroupBatchNorm with the textbook gradient written out."""

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Normalises like the parent class; only training differs."""
        channels = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones_init(), channels, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), channels, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        if not train:
            return self._normalise(x, running_mean.value, running_var.value, scale, bias)
        groups = batch_norm.in_groups(x, self.group_size)
        y, mean, var = _standardise(groups, self.epsilon)
        if not self.is_initializing():
            count = groups[0, ..., 0].size
            running_mean.value = self._moved(running_mean.value, mean.mean(0))
            unbiased = var * (count / max(count - 1, 1))
            running_var.value = self._moved(running_var.value, unbiased.mean(0))
        return (y * scale + bias).reshape(x.shape).astype(self.dtype)


def stem_by_blocks(
    x: Array, kernel: Array, strides: Sequence[int], padding: Any, **settings: Any
) -> Array:
    """Computes a 7x7 stride-2 convolution of 3 channels as a 4x4 one of 2x2x3 = 12 channels.

    Output i reads pixels 2 i - 3 to 2 i + 3. With a row of zeros before the kernel, these are the
    four blocks of two pixels from block i - 2 to block i + 1.
    """
    del strides, padding  # fixed here: the network's stem has stride 2, padded by 3
    batch, height, width, channels = x.shape
    blocks = x.reshape(batch, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    blocks = blocks.reshape(batch, height // 2, width // 2, 4 * channels)
    kernel = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0)))
    kernel = kernel.reshape(4, 2, 4, 2, channels, -1).transpose(0, 2, 1, 3, 4, 5)
    kernel = kernel.reshape(4, 4, 4 * channels, -1)
    return lax.conv_general_dilated(blocks, kernel, (1, 1), [(2, 1), (2, 1)], **settings)


def _one_pass() -> None:
    batch_norm._moments = batch_norm.one_pass_moments


def _two_pass() -> None:
    batch_norm._moments = batch_norm.two_pass_moments


def _own_backward() -> None:
    resnet.GroupBatchNorm = OwnBackwardNorm  # type: ignore[misc]  # replaces a class


def _products() -> None:
    def product(x: Array, kernel: Array, strides: Any, padding: Any, **_: Any) -> Array:
        del padding
        return resnet.matrix_product(x, kernel, strides)

    resnet._one_by_one = product


def _stem() -> None:
    convolution = nn.Conv

    def conv(width: int, kernel_size: tuple[int, int], **settings: Any) -> Any:
        if kernel_size == (7, 7):
            settings["conv_general_dilated"] = stem_by_blocks
        return convolution(width, kernel_size, **settings)

    nn.Conv = conv  # type: ignore[misc,assignment]  # replaces a class


def _no_rotation() -> None:
    augment.pretrain_augment = functools.partial(augment.pretrain_augment, rotation=False)


def _keep_convolutions() -> None:
    """Recomputes what lies between the convolutions; `model.remat` recomputes whole blocks."""
    convolution = nn.Conv

    def conv(*arguments: Any, **settings: Any) -> Any:
        compute = settings["conv_general_dilated"] or lax.conv_general_dilated

        def named(*inputs: Any, **options: Any) -> Array:
            return checkpoint_name(compute(*inputs, **options), "convolution")

        return convolution(*arguments, **settings | {"conv_general_dilated": named})

    nn.Conv = conv  # type: ignore[misc,assignment]  # replaces a class
    kept = jax.checkpoint_policies.save_only_these_names("convolution")
    resnet.Bottleneck = nn.remat(  # type: ignore[misc]  # replaces a class
        resnet.Bottleneck, policy=kept, static_argnums=(2,)
    )


IDEAS: dict[str, Callable[[], None]] = {
    "one-pass statistics": _one_pass,
    "two-pass statistics": _two_pass,
    "own BatchNorm backward": _own_backward,
    "1x1 as matrix products": _products,
    "stem by blocks": _stem,
    "convolutions kept": _keep_convolutions,
    "no rotation": _no_rotation,
}


def adopt(names: list[str]) -> None:
    """Applies ideas to this process; call it before creating a model."""
    for name in names:
        IDEAS[name]()
