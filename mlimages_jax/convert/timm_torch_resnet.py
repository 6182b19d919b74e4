# SPDX-License-Identifier: BSD-3-Clause
"""The pre-activation ResNet of Tencent ML-Images for PyTorch, with the interface of timm.

It has the names of timm's `resnetv2`, except that no max-pooling follows the stem (the first block
of every stage has stride 2), and that `downsample.norm` is a batch normalisation of its own in
front of the projection, where timm reuses `norm1`. timm cannot build it, so this file does; it
needs only torch and safetensors, and config.json and model.safetensors in the same folder.

    import torch, resnet
    model = resnet.create_model(".")                   # in training mode, like timm's
    logits = model(images)                             # float32 [B, 3, S, S], RGB, in [-1, 1]
    model = resnet.create_model(".", num_classes=10)   # a new classifier, for finetuning
    features = resnet.create_model(".", num_classes=0)
"""

import json
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional


def convolution(channels: int, width: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias, padded equally on all sides."""
    return nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False)


class NormAct(nn.BatchNorm2d):
    """Batch normalisation and ReLU; PyTorch's momentum is 1 - 0.997."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-5, momentum=0.003)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        return functional.relu(super().forward(x))


class Downsample(nn.Module):
    """The projection shortcut."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.norm = NormAct(channels)
        self.conv = convolution(channels, width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, width, ceil(H / stride), ceil(W / stride)]."""
        return self.conv(self.norm(x))


class PreActBottleneck(nn.Module):
    """BN-ReLU-1x1, BN-ReLU-3x3, BN-ReLU-1x1, added to the shortcut."""

    def __init__(self, channels: int, width: int, stride: int, *, project: bool):
        super().__init__()
        inner = width // 4
        self.downsample = Downsample(channels, width, stride) if project else None
        self.norm1 = NormAct(channels)
        self.conv1 = convolution(channels, inner, 1)
        self.norm2 = NormAct(inner)
        self.conv2 = convolution(inner, inner, 3, stride)
        self.norm3 = NormAct(inner)
        self.conv3 = convolution(inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, width, ceil(H / stride), ceil(W / stride)]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.conv1(self.norm1(x))
        x = self.conv2(self.norm2(x))
        return self.conv3(self.norm3(x)) + shortcut


class Stage(nn.Module):
    """Blocks of one width, the first of them with stride 2."""

    def __init__(self, channels: int, width: int, size: int):
        super().__init__()
        self.blocks = nn.Sequential(
            PreActBottleneck(channels, width, 2, project=True),
            *(PreActBottleneck(width, width, 1, project=False) for _ in range(size - 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, width, ceil(H / 2), ceil(W / 2)]."""
        return self.blocks(x)


class ClassifierHead(nn.Module):
    """Pooling and classifier, a 1x1 convolution as in timm's `resnetv2`.

    Args:
        features: Channels of the input, F.
        num_classes: Number of classes, C; 0 leaves the features.
        pool_type: "avg", or "" to keep height and width.

    Raises:
        ValueError: If the pooling is another one.
    """

    def __init__(self, features: int, num_classes: int, pool_type: str = "avg"):
        super().__init__()
        if pool_type not in ("avg", ""):
            raise ValueError(f'global_pool={pool_type!r}: this network has "avg" and "" only')
        self.pool_type = pool_type
        self.fc = nn.Conv2d(features, num_classes, 1) if num_classes else nn.Identity()

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """[B, F, H, W] -> [B, C] or, without the classifier, [B, F]."""
        if self.pool_type:
            x = x.mean((2, 3), keepdim=True)
        if not pre_logits:
            x = self.fc(x)
        return x.flatten(1) if self.pool_type else x


class ResNetV2(nn.Module):
    """Maps images in [-1, 1] to logits.

    Attributes:
        num_classes: Number of classes; 0 without a classifier.
        num_features: Channels of `forward_features`.
        head_hidden_size: The same: what the classifier gets.
        default_cfg: What timm's data functions read; `pretrained_cfg` is the same.
    """

    def __init__(
        self,
        num_classes: int,
        stage_sizes: Sequence[int] = (3, 4, 23, 3),
        stage_widths: Sequence[int] = (256, 512, 1024, 2048),
        stem_width: int = 64,
        stem_kernel: int = 7,
    ):
        super().__init__()
        stem = convolution(3, stem_width, stem_kernel, 2)
        self.stem = nn.Sequential(OrderedDict(conv=stem))
        widths = [stem_width, *stage_widths]
        self.stages = nn.Sequential(
            *(Stage(widths[i], widths[i + 1], size) for i, size in enumerate(stage_sizes))
        )
        self.num_features = self.head_hidden_size = widths[-1]
        self.norm = NormAct(self.num_features)
        self.num_classes = num_classes
        self.head = ClassifierHead(self.num_features, num_classes)
        self.default_cfg: dict[str, Any] = {}
        self.pretrained_cfg = self.default_cfg

    def get_classifier(self) -> nn.Module:
        """The classifier."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the classifier by a new one; 0 classes remove it.

        Args:
            num_classes: Number of classes.
            global_pool: "avg" or ""; None keeps it.
        """
        kept = next(self.parameters())  # for its device and dtype
        self.num_classes = num_classes
        pool = self.head.pool_type if global_pool is None else global_pool
        self.head = ClassifierHead(self.num_features, num_classes, pool).to(kept.device, kept.dtype)

    def forward_features(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, num_features, h, w], normalised."""
        return self.norm(self.stages(self.stem(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pools and classifies; with `pre_logits` it only pools."""
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> logits [B, num_classes]."""
        return self.forward_head(self.forward_features(x))


def create_model(
    folder: str | os.PathLike[str] = ".",
    *,
    pretrained: bool = True,
    num_classes: int | None = None,
    global_pool: str = "avg",
) -> ResNetV2:
    """Creates the exported network, like `timm.create_model` in training mode.

    Args:
        folder: The folder with config.json and model.safetensors.
        pretrained: Whether to load its weights.
        num_classes: Number of classes of a new classifier; 0 for none; None keeps the exported one.
        global_pool: "avg", or "" to keep height and width.
    """
    from safetensors.torch import load_file

    config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    model = ResNetV2(**config["architecture"])
    settings = config["pretrained_cfg"].items()
    model.default_cfg = model.pretrained_cfg = {  # with tuples, as timm has them
        name: tuple(value) if isinstance(value, list) else value for name, value in settings
    }
    if pretrained:
        model.load_state_dict(load_file(Path(folder) / "model.safetensors"))
    if num_classes not in (None, model.num_classes):
        model.reset_classifier(num_classes)
    model.head.pool_type = ClassifierHead(1, 0, global_pool).pool_type
    return model
