# SPDX-License-Identifier: BSD-3-Clause
"""Trains a tagger on images of your own, with a recipe for their number and the device.

    mlimages train --config=tagger --data=FOLDER --workdir=workdirs/mine
    mlimages train --config=tagger --data=FOLDER --workdir=workdirs/mine --minutes=30

FOLDER is the one that `mlimages data import` prints. Image size, network, batch size and epochs are
chosen by the table in docs/guide/tagger.md; --config.image_size=160 and the like take precedence.
--config.init_from=CHECKPOINT starts from the weights and the network of another run.

Settings that are missing here have their defaults; --config.help lists all of them.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "task": "tagger",
            "data": {"folder": ""},
            # Photographs are larger than crops; linear would alias.
            "crop": {"interpolation": "area"},
            "augmentation": {"rotation": False},  # photographs are upright
            "model": {"norm_momentum": 0.95},  # few steps: the averages must follow quickly
            "loss": {
                "prior_bias": True,
                "softmax": {"label_smoothing": 0.1},
            },
            "schedule": {
                "name": "cosine",
                "cosine": {"learning_rate": 2e-3, "warmup_steps": 0.05},
            },
            "optimizer": {"name": "adamw", "weight_decay": 0.01, "clip_norm": 1.0},
            "evaluation": {"views": ("whole",)},
            "evaluate_every": 0.2,
            "checkpoint": {"every": 0.2, "keep_latest": 2},
            "log_every": 0.01,
        }
    )
