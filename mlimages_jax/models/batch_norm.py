# SPDX-License-Identifier: BSD-3-Clause
"""Batch normalisation with statistics over fixed groups of examples.

Ioffe and Szegedy (2015) normalise with the statistics of "the batch". In data-parallel training
that is the batch of one worker, 32 images in the original. Here it is a group of `group_size`
images: example i of the global batch belongs to group i // group_size, regardless of the number of
devices. A group that fits on one device needs no communication.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from mlimages_jax.models import platforms


class GroupBatchNorm(nn.Module):
    """Normalises [B, H, W, C] over the examples of a group and all positions.

    Attributes:
        group_size: Number of examples that share statistics; None for the full batch.
        momentum: Decay of the running averages per update.
        epsilon: Constant added to the variance.
        dtype: Dtype of the output; statistics and parameters are always float32.
    """

    group_size: int | None = None
    momentum: float = 0.997
    epsilon: float = 1e-5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Returns normalised, scaled and shifted x [B, H, W, C] in `dtype`.

        In training, the running averages (collection `batch_stats`) are updated with the mean over
        groups of the group means and unbiased variances (Bessel's correction, as in the fused
        TensorFlow kernel). Normalisation itself uses the biased variance.

        Raises:
            ValueError: The batch size is not a multiple of group_size.
        """
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones_init(), (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (channels,), jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)
        if not train:
            # Without groups, so that any batch size can be evaluated.
            return self._normalise(x, running_mean.value, running_var.value, scale, bias)

        groups = in_groups(x, self.group_size)  # [G, n, H, W, C]
        mean, var = _moments(groups)  # [G, C]
        # Initialisation runs on an image of zeros, whose statistics must not enter the averages.
        if not self.is_initializing():
            count = groups[0, ..., 0].size  # n * H * W
            unbiased = var * (count / max(count - 1, 1))
            running_mean.value = self._moved(running_mean.value, mean.mean(0))
            running_var.value = self._moved(running_var.value, unbiased.mean(0))
        expand = (slice(None), None, None, None)  # [G, C] -> [G, 1, 1, 1, C]
        return self._normalise(groups, mean[expand], var[expand], scale, bias).reshape(x.shape)

    def _moved(self, old: Array, new: Array) -> Array:
        return self.momentum * old + (1 - self.momentum) * new

    def _normalise(self, x: Array, mean: Array, var: Array, scale: Array, bias: Array) -> Array:
        # In float32 even for bfloat16 activations: mean and deviation have too few digits there to
        # subtract and divide by.
        factor = jax.lax.rsqrt(var + self.epsilon) * scale
        return ((x.astype(jnp.float32) - mean) * factor + bias).astype(self.dtype)


def in_groups(x: Array, group_size: int | None) -> Array:
    """Reshapes [B, ...] to [B / group_size, group_size, ...]; None makes the batch one group.

    Raises:
        ValueError: B is not a multiple of group_size.
    """
    size = group_size or x.shape[0]
    if x.shape[0] % size:
        raise ValueError(f"a batch of {x.shape[0]} is not divisible by group_size={size}")
    return x.reshape(x.shape[0] // size, size, *x.shape[1:])


def _moments(groups: Array) -> tuple[Array, Array]:
    """Computes mean and biased variance [G, C] of [G, n, H, W, C], in float32.

    GPUs and TPUs use the one-pass form, which reads the activations only once: it made a step of
    ResNet-101 on an H200 6.6% faster (docs/benchmarks/accelerators.md), and for a TPU v5e the
    compiler estimates 14% fewer cycles (docs/benchmarks/training_step.md). CPUs gain nothing.
    """
    return two_pass_moments(groups) if platforms.on_cpu() else one_pass_moments(groups)


def two_pass_moments(groups: Array) -> tuple[Array, Array]:
    """Computes the mean of [G, B, H, W, C], and the mean squared deviation, float32 [G, C]."""
    x = groups.astype(jnp.float32)
    mean = x.mean((1, 2, 3))
    return mean, jnp.square(x - mean[:, None, None, None]).mean((1, 2, 3))


def one_pass_moments(groups: Array) -> tuple[Array, Array]:
    """Computes the same moments from two sums that XLA fuses into one pass.

    Each channel is shifted by its first value, because E[x^2] - E[x]^2 of unshifted values cancels
    catastrophically when the mean is large compared with the deviation.
    """
    shift = lax.stop_gradient(groups[:, :1, :1, :1].astype(jnp.float32))
    x = groups.astype(jnp.float32) - shift
    mean, square = x.mean((1, 2, 3)), jnp.square(x).mean((1, 2, 3))
    # Rounding may make the variance of a constant channel slightly negative.
    return mean + shift[:, 0, 0, 0], jnp.maximum(square - jnp.square(mean), 0.0)
