# SPDX-License-Identifier: BSD-3-Clause
"""PyTorch's DataLoader with Pillow, as timm reads ImageNet: image files, worker processes."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler

from mlimages_jax.data.images import transforms
from peers.serve import arguments, serve_batches

Row = tuple[np.ndarray, np.ndarray]


def crop(image: Image.Image, box: transforms.CropBox, size: int) -> Image.Image:
    """Decodes the image and resizes the box with Pillow's antialiased bilinear filter."""
    right, bottom = box.left + box.width, box.top + box.height
    return image.convert("RGB").resize(
        (size, size), Image.Resampling.BILINEAR, box=(box.left, box.top, right, bottom)
    )


class Images(Dataset[Row]):
    """The files of a folder, cropped and flipped at random, with nine labels each."""

    def __init__(self, images: Path, *, size: int, area: tuple[float, float]):
        self.files = sorted(images.iterdir())
        self.size = size
        self.area = area

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Row:
        rng = np.random.default_rng(torch.randint(2**62, ()).item())  # torch seeds each worker
        with Image.open(self.files[index]) as image:
            box = transforms.sample_crop(rng, image.height, image.width, area=self.area)
            pixels = crop(image, box, self.size)
        if rng.random() < 0.5:
            pixels = pixels.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.asarray(pixels), np.arange(9)


def collate(rows: list[Row]) -> tuple[torch.Tensor, torch.Tensor]:
    """Makes uint8 [B, S, S, 3] and labels [B, 9], like timm's fast_collate but not transposed."""
    images, labels = zip(*rows, strict=True)
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels))


def main() -> None:
    """Serves batches of the images in `images`."""
    options = arguments()
    arrays = Path(options["images"])
    images = Images(arrays, size=options["size"], area=tuple(options["area"]))

    def save_crops() -> None:
        crops = [
            crop(Image.open(arrays / name), transforms.CropBox(*box), options["size"])
            for name, box in options["boxes"]
        ]
        np.save(options["crops"], np.stack([np.asarray(image) for image in crops]))

    loader = DataLoader(
        images,
        options["batch"],
        sampler=RandomSampler(images, replacement=True, num_samples=2**40),  # endless
        num_workers=options["workers"],
        collate_fn=collate,
        drop_last=True,
    )
    serve_batches(
        iter(loader),
        batch_size=options["batch"],
        warm_up=options["warm_up"],
        seconds=options["seconds"],
        version=f"torch {torch.__version__}",
        save_crops=save_crops,
    )


if __name__ == "__main__":
    main()
