# SPDX-License-Identifier: BSD-3-Clause
"""Pretrains ResNet-101 on ML-Images with the weighted sigmoid cross-entropy.

Wu et al., "Tencent ML-Images: A Large-Scale Multi-Label Image Database for Visual Representation
Learning" (2019), and the released train.py and train.sh.

    mlimages train --config=configs/pretrain.py:released --workdir=W
    mlimages train --config=configs/pretrain.py:paper --workdir=W

Variants: `released` has the loss and schedule of the published script, `paper` the loss as the
paper defines it. Both run 60 epochs with batches of 4,096 in 128 groups of 32, the paper's 128
workers. The paper trained for 90 hours on 128 P40 GPUs. 60 epochs are 1.06e9 images and, at 47.2
GFLOP each, 5e19 floating-point operations.

Settings that count steps may be fractions of total_steps (0.1 is a tenth of the run). Those below
are, so another total_steps stretches or compresses the whole schedule. For another batch size add
--config.learning_rate_for=4096, which scales the rates by batch_size / 4,096. Another network is
chosen by --config.model=resnet50 (resnet14, 26, 50, 101, 152 or 200).

    mlimages train --config=configs/pretrain.py --config.help

prints every setting with its meaning and its default. Only what differs from the defaults is set
here.
"""

from ml_collections import ConfigDict

TRAIN_IMAGES = 17_609_752  # of the published list
BATCH = 4_096  # paper, section 5.1: 128 GPUs with 32 images each
EPOCHS = 60  # paper, section 5.1
STEPS = round(EPOCHS * TRAIN_IMAGES / BATCH)  # 257,955
VARIANTS = ("released", "paper")


def get_config(variant: str = "released") -> ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"pretrain.py:{variant}: the variants are {', '.join(VARIANTS)}")
    return ConfigDict(
        {
            "task": "train",
            "data": {"folder": "data/ml_images/released_320/1.0.0"},
            "batch_size": BATCH,
            "group_size": 32,  # images that share BatchNorm statistics and class counts: one worker
            "total_steps": STEPS,
            "model": {  # ResNet-101
                "stage_sizes": (3, 4, 23, 3),
                "stage_widths": (256, 512, 1024, 2048),
                "stem_width": 64,
                "stem_kernel": 7,
            },
            "loss": {"name": "weighted", "weighted": {"variant": variant}},
            "schedule": {
                "name": "pretraining",
                "pretraining": {
                    "learning_rate": 0.08,  # train.sh: lr
                    "decay_steps": 110_000 / STEPS,  # train.sh: lr_decay_step
                    "warmup_steps": 35_200 / STEPS,  # train.sh: 8 epochs of 4,400 steps
                    "warmup_learning_rate": 0.01,  # train.sh: lr_warmup
                    "warmup_decay_steps": 4_400 / STEPS,  # train.sh: one epoch
                    "warmup_decay_factor": 1.297,  # train.sh: 0.01 * 1.297^8 = 0.08
                },
            },
            "evaluation": {"batch_size": 1_024},
            "evaluate_every": 4_400 / STEPS,  # about an epoch
            "checkpoint": {"every": 1_000 / STEPS, "keep_every": 44_000 / STEPS},  # 10 epochs
            "input": {"max_bad_images": 10_000},
        }
    )
