# SPDX-License-Identifier: BSD-3-Clause
"""The network of `mlimages_jax.models.resnet` in PyTorch, for a like-for-like comparison."""

from torch import Tensor, nn

STAGE_SIZES = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
STAGE_WIDTHS = (256, 512, 1024, 2048)


def _norm_relu(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels, momentum=0.003), nn.ReLU(inplace=True))


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2, bias=False)


class Bottleneck(nn.Module):
    """BN-ReLU-1x1, BN-ReLU-3x3, BN-ReLU-1x1, added to the shortcut."""

    def __init__(self, inputs: int, width: int, *, stride: int, project: bool):
        super().__init__()
        inner = width // 4
        self.residual = nn.Sequential(
            # Not in place: the shortcut reads the same input tensor.
            nn.Sequential(nn.BatchNorm2d(inputs, momentum=0.003), nn.ReLU()),
            _conv(inputs, inner, 1),
            _norm_relu(inner),
            _conv(inner, inner, 3, stride),
            _norm_relu(inner),
            _conv(inner, width, 1),
        )
        self.shortcut: nn.Module = nn.Identity()
        if project:
            self.shortcut = nn.Sequential(_norm_relu(inputs), _conv(inputs, width, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, C, H, W] to [B, width, H / stride, W / stride]."""
        return self.residual(x) + self.shortcut(x)


class ResNet(nn.Sequential):
    """Maps images [B, 3, H, W] in [-1, 1] to logits [B, num_classes]."""

    def __init__(self, depth: int, num_classes: int):
        layers: list[nn.Module] = [_conv(3, 64, 7, 2)]
        inputs = 64
        for size, width in zip(STAGE_SIZES[depth], STAGE_WIDTHS, strict=True):
            for j in range(size):
                first = j == 0
                layers.append(Bottleneck(inputs, width, stride=1 + first, project=first))
                inputs = width
        layers += [_norm_relu(inputs), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        super().__init__(*layers, nn.Linear(inputs, num_classes))
