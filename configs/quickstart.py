# SPDX-License-Identifier: BSD-3-Clause
"""A small ResNet on drawn images: minutes on two CPU cores, nothing to download.

    mlimages train --config=configs/quickstart.py --workdir=workdirs/quickstart

What is not set here has its default; add --config.help for every setting and its meaning.
"""

from ml_collections import ConfigDict

STEPS = 1_100


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "task": "quickstart",
            "data": {"folder": ""},  # empty: draw `shapes` into the workdir
            "image_size": 48,
            "batch_size": 64,
            "group_size": 64,  # smaller groups have noisy BatchNorm statistics and learn slower
            "total_steps": STEPS,
            "crop": {"interpolation": "area"},
            "augmentation": {
                "colour": False,  # colours are classes here
                "rotation": False,  # a turned square is another class to learn
            },
            "model": {
                "stage_sizes": (1, 1, 1),
                "stage_widths": (64, 128, 256),
                "stem_width": 32,
                "stem_kernel": 3,
                "norm_momentum": 0.9,  # few steps: the averages must follow quickly
                "dtype": "float32",
            },
            "loss": {
                "name": "weighted",  # or sigmoid, asymmetric, focal, two_way
                "weighted": {
                    "group_size": 4,  # a class of 15% is in half of such groups
                    "positive_weight": 4.0,  # 12 is for classes of one image in a thousand
                },
            },
            "schedule": {
                "name": "cosine",
                "cosine": {"learning_rate": 0.1, "warmup_steps": 100 / STEPS},
            },
            "evaluation": {"batch_size": 128, "views": ("whole",)},
            "evaluate_every": 0.5,
            "checkpoint": {"every": 0.5, "keep_latest": 2},
            "input": {"num_threads": 2, "prefetch": 8, "max_bad_images": 10},
        }
    )
