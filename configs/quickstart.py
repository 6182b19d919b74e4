# SPDX-License-Identifier: BSD-3-Clause
"""Trains a small ResNet on generated images: minutes on two CPU cores, without a download.

    mlimages train --config=configs/quickstart.py --workdir=workdirs/quickstart

Settings that are missing here have their defaults; --config.help lists all of them.
"""

from ml_collections import ConfigDict

STEPS = 1_100


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "task": "quickstart",
            "data": {"folder": ""},  # empty: generate `shapes` in the workdir
            "image_size": 48,
            "batch_size": 64,
            "group_size": 64,  # smaller groups have noisy BatchNorm statistics and learn slower
            "total_steps": STEPS,
            "crop": {"interpolation": "area"},
            "augmentation": {
                "colour": False,  # colours are classes here
                "rotation": False,  # the objects are already drawn leaning to either side
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
                    # In a group of 64 nearly every class would be present in every step, and its
                    # weight would fall to the minimum (docs/benchmarks/learning.md).
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
