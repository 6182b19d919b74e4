# SPDX-License-Identifier: BSD-3-Clause
"""Finetunes any checkpoint on ImageNet, or on classes of your own.

Wu et al., "Tencent ML-Images: A Large-Scale Multi-Label Image Database for Visual Representation
Learning" (2019), and the released finetune.py and finetune.sh.

    mlimages train --config=configs/finetune.py:224to299 --workdir=W \
        --config.init_from=PRETRAINED

Variants, with the checkpoints of the published table that they reproduce:

    224        ckpt2 (top-1 78.8 at 224, 79.5 at 299)
    224to299   ckpt3 (78.3, 80.73)
    299        ckpt4 (75.8, 79.6)
    scratch    ckpt1 (77.8, 79.0): no pretraining, everything is trained
    modern     later methods: cosine schedule, label smoothing, mixup and CutMix, RandAugment, EMA
               weights; no published number

All run 600,000 steps with batches of 256: 120 epochs. The first three freeze the stem and the first
two stages, as finetune.sh does (FixBlock2=True); --config.optimizer.freeze='()' trains everything.
For classes of your own set config.data.folder and total_steps; all settings that count steps follow
it. For several labels per image also set --config.loss.name=sigmoid, asymmetric or weighted. For
another batch size add --config.learning_rate_for=256, which scales the rates by batch_size / 256.

Settings that are missing here have their defaults; --config.help lists all of them.
"""

from ml_collections import ConfigDict

VARIANTS = ("224", "224to299", "299", "scratch", "modern")
STEPS = 600_000  # finetune.sh: max_iter
FIX_BLOCK2 = ("stem/*", "stage0_*", "stage1_*")  # finetune.py: what FixBlock2 leaves untrained


def get_config(variant: str = "224") -> ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"finetune.py:{variant}: the variants are {', '.join(VARIANTS)}")
    modern, from_scratch = variant == "modern", variant == "scratch"
    return ConfigDict(
        {
            "task": "train",
            "data": {"folder": "data/imagenet/original/1.0.0"},  # of tfds_builders.imagenet
            "image_size": 299 if variant == "299" else 224,
            "batch_size": 256,  # finetune.sh: 4 GPUs with 64 images each
            "group_size": 64,  # of BatchNorm: one of these GPUs
            "total_steps": STEPS,
            # The release says "224 in early epochs, then 299 in late epochs" without numbers. Here
            # 299 starts at the second drop of the learning rate: the second half of the training.
            "resize": ((0.5, 299, 256),) if variant == "224to299" else (),
            "crop": {"area": (0.05, 1.0)},  # finetune.py: area_cover
            "augmentation": {
                "colour": not modern,  # RandAugment has its own
                "rotation": not modern,
                "rand_augment": 2 if modern else 0,
                "magnitude": 7.0 if modern else 0.0,
                "mixup": 0.2 if modern else 0.0,
                "cutmix": 1.0 if modern else 0.0,
            },
            "loss": {
                "name": "softmax",  # or, for several labels an image, sigmoid, asymmetric, weighted
                "softmax": {"label_smoothing": 0.1 if modern else 0.0},
            },
            "schedule": {
                "name": "cosine" if modern else "staircase",
                "staircase": {
                    "learning_rate": 0.1,  # finetune.sh: lr
                    "decay_steps": 150_000 / STEPS,  # finetune.sh: lr_decay_step
                },
                "cosine": {
                    "learning_rate": 0.1,
                    "warmup_steps": 25_000 / STEPS,  # 5 epochs
                },
            },
            "optimizer": {
                "nesterov": modern,
                "norm_weight_decay": 0.0 if modern else 1e-5,  # finetune.py: a tenth of the other
                "freeze": () if from_scratch or modern else FIX_BLOCK2,
                "ema_decay": 0.9999 if modern else 0.0,
            },
            "evaluation": {"sizes": (224, 299)},  # both columns of the published table
            "evaluate_every": 25_000 / STEPS,  # about 5 epochs
            "checkpoint": {
                "every": 5_000 / STEPS,  # an epoch; finetune.sh: snapshot
                "keep_every": 50_000 / STEPS,
            },
            "init_from": "" if from_scratch else "workdirs/pretrain",
        }
    )
