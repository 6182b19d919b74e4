# SPDX-License-Identifier: BSD-3-Clause
"""The pre-activation ResNet of Tencent ML-Images for PyTorch.

He et al., "Identity Mappings in Deep Residual Networks" (2016), with the changes of the ML-Images
release: no max-pooling (the first block of every stage has stride 2), the stride is in the 3x3
convolution, and the projection shortcut has its own batch normalisation and ReLU.

This file needs only torch and safetensors, and config.json and weights.safetensors in the same
folder.

    import torch, resnet
    model = resnet.load(".")
    logits, features = model(images)   # float32 [B, 3, S, S], RGB, 2 * value / 255 - 1
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional


def convolution(channels: int, width: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias, padded equally on all sides."""
    return nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False)


def normalisation(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation with the constants of the release; PyTorch's momentum is 1 - 0.997."""
    return nn.BatchNorm2d(channels, eps=1e-5, momentum=0.003)


class Bottleneck(nn.Module):
    """BN-ReLU-1x1, BN-ReLU-3x3, BN-ReLU-1x1, added to the shortcut."""

    def __init__(self, channels: int, width: int, stride: int, *, project: bool):
        super().__init__()
        inner = width // 4
        if project:
            self.shortcut_norm = normalisation(channels)
            self.shortcut_conv = convolution(channels, width, 1, stride)
        self.project = project
        self.norm1 = normalisation(channels)
        self.conv1 = convolution(channels, inner, 1)
        self.norm2 = normalisation(inner)
        self.conv2 = convolution(inner, inner, 3, stride)
        self.norm3 = normalisation(inner)
        self.conv3 = convolution(inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, width, ceil(H / stride), ceil(W / stride)]."""
        shortcut = x
        if self.project:
            shortcut = self.shortcut_conv(functional.relu(self.shortcut_norm(x)))
        x = self.conv1(functional.relu(self.norm1(x)))
        x = self.conv2(functional.relu(self.norm2(x)))
        x = self.conv3(functional.relu(self.norm3(x)))
        return x + shortcut


class ResNet(nn.Module):
    """Maps images in [-1, 1] to logits and features."""

    def __init__(
        self,
        num_classes: int,
        stage_sizes: Sequence[int] = (3, 4, 23, 3),
        stage_widths: Sequence[int] = (256, 512, 1024, 2048),
        stem_width: int = 64,
        stem_kernel: int = 7,
    ):
        super().__init__()
        self.stem = convolution(3, stem_width, stem_kernel, 2)
        channels = stem_width
        self.blocks: list[str] = []
        for stage, (size, width) in enumerate(zip(stage_sizes, stage_widths, strict=True)):
            for block in range(size):
                name = f"stage{stage}_block{block}"
                first = block == 0
                # Named like the modules of the JAX network, so that the weights keep their names.
                self.add_module(name, Bottleneck(channels, width, 2 if first else 1, project=first))
                self.blocks.append(name)
                channels = width
        self.final_norm = normalisation(channels)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, H, W] -> logits [B, num_classes] and features [B, stage_widths[-1]]."""
        x = self.stem(images)
        for name in self.blocks:
            x = getattr(self, name)(x)
        features = functional.relu(self.final_norm(x)).mean((2, 3))
        return self.head(features), features


def load(folder: str | os.PathLike[str]) -> ResNet:
    """Loads the exported network in evaluation mode.

    Args:
        folder: The folder with config.json and weights.safetensors.
    """
    from safetensors.torch import load_file  # here: the network itself needs only torch

    config = json.loads((Path(folder) / "config.json").read_text())
    model = ResNet(**config["architecture"])
    model.load_state_dict(load_file(Path(folder) / "weights.safetensors"))
    return model.eval()
