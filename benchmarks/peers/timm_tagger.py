# SPDX-License-Identifier: BSD-3-Clause
"""The peers of small_sets.py: a network with several labels per image, for some minutes.

Runs in an interpreter that has torch, torchvision and timm, without this package:

    python timm_tagger.py DATA.npz SCORES.npy --model resnet26d --size 128 --minutes 6

DATA.npz has `train` and `val`, JPEG bytes as objects, and `train_labels`, uint8 [n, C]. SCORES.npy
gets the probabilities of val, float32 [m, C], of the averaged weights. The recipe is the best that
is known for it: AdamW with decay on kernels only, a cosine by the time that is left with warm-up,
the asymmetric loss, the classifier's bias at the frequencies of the classes, an EMA, and timm's own
augmentation. Networks named torchvision.NAME are "plain PyTorch": torchvision's network and
augmentation (crops and flips), the rest alike.
"""

import argparse
import copy
import io
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import timm
import timm.data
import torch
import torchvision
from PIL import Image
from torchvision import transforms

TORCHVISION = "torchvision."
BATCH = 64
RATE, DECAY = 2e-3, 0.01
WARMUP, EMA_TIME = 0.05, 0.05  # parts of the run
GAMMA, CLIP = 4.0, 0.05  # of absent classes, as in our own default
RESERVED = 0.05  # part of the time for the scores of val


class Images(torch.utils.data.Dataset[Any]):
    """Decoded and transformed images with their labels."""

    def __init__(self, files: Any, labels: Any, transform: Callable[[Image.Image], Any]) -> None:
        self._files, self._labels, self._transform = files, labels, transform

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Any:
        image = Image.open(io.BytesIO(self._files[index])).convert("RGB")
        return self._transform(image), torch.from_numpy(self._labels[index].astype(np.float32))


def asymmetric_loss(logits: Any, targets: Any) -> Any:
    """Returns the loss of Ben-Baruch et al., 2021, with gamma+ = 0, summed over classes."""
    p = torch.sigmoid(logits)
    absent = (p - CLIP).clamp(min=0)
    positive = targets * torch.log(p.clamp(min=1e-8))
    negative = (1 - targets) * absent**GAMMA * torch.log((1 - absent).clamp(min=1e-8))
    return -(positive + negative).sum(1).mean()


def optimizer_of(model: Any) -> Any:
    """Returns AdamW that decays kernels, but neither norms nor biases."""
    kernels = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=RATE)


def network(name: str, labels: Any) -> Any:
    """Returns a network whose classifier's bias is at the frequencies of the classes.

    Args:
        name: Name of the network in timm, or torchvision.NAME.
        labels: uint8 [n, C].
    """
    if name.startswith(TORCHVISION):
        plain = name.removeprefix(TORCHVISION)
        model: Any = torchvision.models.get_model(plain, num_classes=labels.shape[1])
        classifier = model.fc
    else:
        model = timm.create_model(name, num_classes=labels.shape[1])
        classifier = model.get_classifier()
    priors = (labels.sum(0) + 0.5) / (len(labels) + 1)
    with torch.no_grad():
        classifier.bias.copy_(torch.from_numpy(np.log(priors / (1 - priors))))
    return model.to(memory_format=torch.channels_last)


def augmentation(arguments: argparse.Namespace) -> Callable[[Image.Image], Any]:
    """Returns the transformation of training images: that of the library of the network."""
    scale = (arguments.area, 1.0)
    if not arguments.model.startswith(TORCHVISION):
        return timm.data.create_transform(
            arguments.size, is_training=True, scale=scale, color_jitter=0.4,
            auto_augment=arguments.auto_augment,
        )  # fmt: skip
    mean, deviation = timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(arguments.size, scale=scale),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(mean, deviation),
        ]
    )


def trained(model: Any, train: Images, *, batch: int, budget: float) -> tuple[Any, int]:
    """Trains until the time is over; returns the EMA of the network and the number of steps.

    Args:
        model: The network.
        train: Training images.
        batch: Images per step.
        budget: Seconds to train for.
    """
    loader = torch.utils.data.DataLoader(
        train, batch, shuffle=True, drop_last=True, num_workers=1, persistent_workers=True
    )
    optimizer, average = optimizer_of(model), copy.deepcopy(model).eval()
    start, steps = time.monotonic(), 0
    while True:
        for images, targets in loader:
            done = (time.monotonic() - start) / budget
            if done >= 1:
                return average, steps
            rate = done / WARMUP if done < WARMUP else 0.5 * (1 + math.cos(math.pi * done))
            for group in optimizer.param_groups:
                group["lr"] = RATE * rate
            model.train()
            logits = model(images.contiguous(memory_format=torch.channels_last))
            loss = asymmetric_loss(logits, targets)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            steps += 1
            # The number of steps is not known before: what the elapsed time suggests is taken.
            expected = steps / max(done, 1e-3)
            update_average(average, model, decay=max(0.0, 1 - 1 / max(EMA_TIME * expected, 1)))


def update_average(average: Any, model: Any, *, decay: float) -> None:
    """Moves the averaged weights and statistics towards those of the network."""
    pairs = zip(average.state_dict().values(), model.state_dict().values(), strict=True)
    with torch.no_grad():
        for mean, now in pairs:
            if mean.dtype.is_floating_point:
                mean.lerp_(now, 1 - decay)
            else:
                mean.copy_(now)


def scores(model: Any, val: Images) -> np.ndarray:
    """Returns the probabilities, float32 [m, C]."""
    loader = torch.utils.data.DataLoader(val, 128)
    with torch.inference_mode():
        batches = [torch.sigmoid(model(images)).numpy() for images, _ in loader]
    return np.concatenate(batches).astype(np.float32)


def main() -> None:
    """Trains until the time is over and writes the scores."""
    begin = time.monotonic()
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("scores")
    parser.add_argument("--model", default="resnet26d")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--area", type=float, default=0.25, help="smallest crop, of the image")
    parser.add_argument("--auto-augment", help="timm's, as rand-m9-n2")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    data = np.load(arguments.data, allow_pickle=True)
    labels, size = data["train_labels"], arguments.size
    model = network(arguments.model, labels)
    train = Images(data["train"], labels, augmentation(arguments))
    batch = min(BATCH, max(8, len(train) // 8))
    # The set-up above is part of the minutes, as it is for our command.
    budget = 60 * arguments.minutes * (1 - RESERVED) - (time.monotonic() - begin)
    average, steps = trained(model, train, batch=batch, budget=budget)
    val = Images(
        data["val"],
        np.zeros((len(data["val"]), labels.shape[1])),
        timm.data.create_transform(size, is_training=False, crop_pct=1.0, crop_mode="squash"),
    )
    np.save(arguments.scores, scores(average, val))
    print(f"{steps} steps of {batch}, {steps * batch / len(train):.1f} epochs")


if __name__ == "__main__":
    main()
