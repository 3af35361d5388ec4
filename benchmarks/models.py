"""Models for images of 3 x 32 x 32, to train on the CPU."""

from itertools import pairwise

import torch
from torch import nn

CLASSES = 10


def mlp(width: int = 2048) -> nn.Module:
    """25 million parameters: much to send for little to compute."""
    sizes = [3 * 32 * 32, *[width] * 5]
    layers = [m for pair in pairwise(sizes) for m in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(width, 1000))


def resnet18(width: int = 64) -> nn.Module:
    """11 million parameters: ResNet-18 (arXiv:1512.03385) with a first layer for small images."""
    widths = [width, width, 2 * width, 4 * width, 8 * width]
    stages = [_stage(*pair, stride=1 if i == 0 else 2) for i, pair in enumerate(pairwise(widths))]
    start = [nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * width, CLASSES)]
    return nn.Sequential(*start, *stages, *end)


MODELS = {"mlp": mlp, "resnet18": resnet18}


class _Block(nn.Module):
    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        same = stride == 1 and before == width
        self.shortcut = nn.Identity() if same else _projection(before, width, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def _projection(before: int, width: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))


def _stage(before: int, width: int, stride: int) -> nn.Module:
    return nn.Sequential(_Block(before, width, stride), _Block(width, width, 1))
