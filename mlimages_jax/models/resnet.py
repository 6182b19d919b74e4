# SPDX-License-Identifier: BSD-3-Clause
"""The pre-activation ResNet of Tencent ML-Images.

He et al., "Identity Mappings in Deep Residual Networks" (2016), with the changes of the ML-Images
release: no max-pooling (the first block of every stage, including the first stage, has stride 2),
the stride is in the 3x3 convolution, and the projection shortcut has its own BatchNorm and ReLU.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from mlimages_jax.models.batch_norm import GroupBatchNorm
from mlimages_jax.models.depths import STAGE_SIZES, STAGE_WIDTHS, STEM_KERNEL, STEM_WIDTH

# Defaults of tf.variance_scaling_initializer(), which the original uses.
conv_init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")


def matrix_product(x: Array, kernel: Array, strides: Sequence[int]) -> Array:
    """Convolves by a matrix product: [B, H, W, I], [1, 1, I, O] -> [B, h, w, O]."""
    # A 1x1 kernel reads only these pixels, so the stride can be applied first.
    x = x[:, :: strides[0], :: strides[1]]
    # As a product of two axes: of four, the gradient of the kernel takes 264 ms instead of 200 on a
    # CPU (docs/benchmarks/training_step.md).
    rows = x.reshape(-1, x.shape[-1])  # [B h w, I]
    return (rows @ kernel[0, 0]).reshape(*x.shape[:-1], kernel.shape[-1])


def _one_by_one(
    x: Array, kernel: Array, strides: Sequence[int], padding: Any, **settings: Any
) -> Array:
    """Computes `lax.conv_general_dilated` for kernels [1, 1, I, O].

    On CPU, XLA's 1x1 convolutions take 1.7 times as long as the matrix product, including gradients
    (docs/benchmarks/training_step.md). Other platforms keep the convolution, so their programs are
    unchanged.
    """

    def convolution(x: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(x, kernel, strides, padding, **settings)

    def product(x: Array, kernel: Array) -> Array:
        return matrix_product(x, kernel, strides)

    return lax.platform_dependent(x, kernel, cpu=product, default=convolution)


def _conv(width: int, kernel: int, *, stride: int = 1, dtype: Any, name: str) -> nn.Conv:
    """Returns a convolution without bias and with symmetric padding.

    With a stride, XLA's "SAME" would pad asymmetrically.
    """
    before = (kernel - 1) // 2
    padding = [(before, kernel - 1 - before)] * 2
    return nn.Conv(
        width,
        (kernel, kernel),
        strides=stride,
        padding=padding,
        use_bias=False,
        dtype=dtype,
        kernel_init=conv_init,
        conv_general_dilated=_one_by_one if kernel == 1 else None,
        name=name,
    )


class Bottleneck(nn.Module):
    """BN-ReLU-1x1, BN-ReLU-3x3, BN-ReLU-1x1, added to the shortcut.

    Attributes:
        width: Output channels of the block; the inner convolutions have a quarter of them.
        stride: Stride of the 3x3 convolution and of the projection.
        project: Whether the shortcut is BN-ReLU-1x1 rather than the identity.
        norm: Constructor of the BatchNorms.
        dtype: Dtype of the computation.
    """

    width: int
    stride: int
    project: bool
    norm: Callable[..., GroupBatchNorm]
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), width]."""
        # Every module has a name of its own. Automatic names would change with nn.remat or with the
        # order of these lines, and no checkpoint could be read any more.
        norm, conv = self.norm, partial(_conv, dtype=self.dtype)
        shortcut = x
        if self.project:
            # Not shared with norm1, although both see the same input: the release has separate
            # variables.
            shortcut = nn.relu(norm(name="shortcut_norm")(x, train=train))
            shortcut = conv(self.width, 1, stride=self.stride, name="shortcut_conv")(shortcut)
        x = nn.relu(norm(name="norm1")(x, train=train))
        x = conv(self.width // 4, 1, name="conv1")(x)
        x = nn.relu(norm(name="norm2")(x, train=train))
        x = conv(self.width // 4, 3, stride=self.stride, name="conv2")(x)
        x = nn.relu(norm(name="norm3")(x, train=train))
        x = conv(self.width, 1, name="conv3")(x)
        return x + shortcut


class ResNet(nn.Module):
    """Maps images in [-1, 1] to logits and features.

    Attributes:
        num_classes: Number of outputs of the classifier.
        stage_sizes: Number of blocks in every stage.
        stage_widths: Output channels of every stage.
        stem_width: Output channels of the first convolution.
        stem_kernel: Side of the first convolution's kernel.
        group_size: Number of examples that share BatchNorm statistics; None for the full batch.
        norm_momentum: Decay of the running averages per step.
        dtype: Dtype of the computation; parameters, statistics, pooling and logits are float32.
        remat: Whether to recompute a block's activations in the backward pass instead of keeping
            them.
    """

    num_classes: int
    stage_sizes: Sequence[int] = STAGE_SIZES[101]
    stage_widths: Sequence[int] = STAGE_WIDTHS
    stem_width: int = STEM_WIDTH
    stem_kernel: int = STEM_KERNEL
    group_size: int | None = None
    norm_momentum: float = 0.997
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> tuple[Array, Array]:
        """Runs the network.

        Args:
            images: RGB images, float [B, H, W, 3] in [-1, 1].
            train: Whether to normalise with group statistics and update the running averages.

        Returns:
            Logits, float32 [B, num_classes], and pooled features, float32 [B, stage_widths[-1]].

        Raises:
            ValueError: stage_sizes and stage_widths differ in length.
        """
        if len(self.stage_sizes) != len(self.stage_widths):
            raise ValueError(
                f"{len(self.stage_sizes)} stage_sizes but {len(self.stage_widths)} stage_widths"
            )
        norm = partial(
            GroupBatchNorm, self.group_size, momentum=self.norm_momentum, dtype=self.dtype
        )
        # Argument 2 is `train` (0 is the module): remat would trace it, and an `if` on it would
        # fail.
        block = nn.remat(Bottleneck, static_argnums=(2,)) if self.remat else Bottleneck
        stem = _conv(self.stem_width, self.stem_kernel, stride=2, dtype=self.dtype, name="stem")
        x = stem(images.astype(self.dtype))
        for i, (size, width) in enumerate(zip(self.stage_sizes, self.stage_widths, strict=True)):
            for j in range(size):
                x = block(
                    width,
                    stride=2 if j == 0 else 1,
                    project=j == 0,
                    norm=norm,
                    dtype=self.dtype,
                    name=f"stage{i}_block{j}",
                )(x, train)
        x = nn.relu(norm(name="final_norm")(x, train=train))
        features = x.astype(jnp.float32).mean((1, 2))  # [B, stage_widths[-1]]
        # Without a dtype: float32 features keep the classifier and its logits in float32.
        logits = nn.Dense(self.num_classes, name="head")(features)  # [B, num_classes]
        return logits, features
