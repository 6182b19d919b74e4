# SPDX-License-Identifier: BSD-3-Clause
"""Finetuning on ImageNet, or on classes of your own, from any checkpoint.

Wu et al., "Tencent ML-Images: A Large-Scale Multi-Label Image Database for Visual Representation
Learning" (2019), and the released finetune.py and finetune.sh.

    python -m mlimages_jax.main --config=configs/finetune.py:224to299 --workdir=W \
        --config.init_from=PRETRAINED

Variants, with the checkpoints of the published table that they stand for:

    224        ckpt2 (top-1 78.8 at 224, 79.5 at 299)
    224to299   ckpt3 (78.3, 80.73)
    299        ckpt4 (75.8, 79.6)
    scratch    ckpt1 (77.8, 79.0): no pretraining, everything is trained
    modern     what came later: cosine schedule, label smoothing, mixup and CutMix, RandAugment,
               averaged weights; no published number

All run 600,000 steps of batch 256, 120 epochs. The first three freeze the stem and the first two
stages, as finetune.sh does (FixBlock2=True); --config.optimizer.freeze='()' trains everything.
For classes of your own set config.data.folder and total_steps, which everything that counts steps
follows; for several labels an image also --config.loss.name=sigmoid, asymmetric or weighted; for
another batch size --config.learning_rate_for=256, which multiplies the rates by batch_size / 256.

Fields that are not explained here are in configs/pretrain.py.
"""

from ml_collections import ConfigDict

VARIANTS = ("224", "224to299", "299", "scratch", "modern")
STEPS = 600_000  # finetune.sh: max_iter
FIX_BLOCK2 = ("stem/*", "stage0_*", "stage1_*")  # finetune.py: what FixBlock2 leaves untrained


def get_config(variant: str = "224") -> ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"finetune.py:{variant}: the variants are {', '.join(VARIANTS)}")
    modern, from_scratch = variant == "modern", variant == "scratch"
    config = ConfigDict()
    config.task = "train"
    config.seed = 0

    config.data = ConfigDict()
    config.data.folder = "data/imagenet/original/1.0.0"  # what tfds_builders.imagenet prints
    config.data.train_split = "train"
    config.data.order = "global"
    config.data.copy_to = ""
    config.data.allow_change = False

    config.image_size = 299 if variant == "299" else 224
    config.batch_size = 256  # finetune.sh: 4 GPUs with 64 images each
    config.group_size = 64  # of BatchNorm: one of these GPUs
    config.total_steps = STEPS
    # "224 in early epochs, then 299 in late epochs", says the release, and not which. From the
    # second drop of the learning rate on, half of the training is at 299.
    config.resize = ((0.5, 299, 256),) if variant == "224to299" else ()

    config.crop = ConfigDict()
    config.crop.area = (0.05, 1.0)  # finetune.py: area_cover
    config.crop.aspect = (0.75, 1.33)  # image_preprocessing.py
    config.crop.interpolation = "linear"
    config.crop.flip = True

    config.augmentation = ConfigDict()
    config.augmentation.colour = not modern  # RandAugment has its own
    config.augmentation.rotation = not modern
    config.augmentation.rand_augment = 2 if modern else 0
    config.augmentation.magnitude = 7.0 if modern else 0.0
    config.augmentation.mixup = 0.2 if modern else 0.0
    config.augmentation.cutmix = 1.0 if modern else 0.0

    config.model = ConfigDict()
    # Left open, the network is that of init_from; without one ResNet-101, as the release's.
    config.model.stage_sizes = ()
    config.model.stage_widths = ()
    config.model.stem_width = 0
    config.model.stem_kernel = 0
    config.model.norm_momentum = 0.997  # flags.py: batch_norm_decay
    config.model.dtype = "bfloat16"
    config.model.remat = False

    config.loss = ConfigDict()
    config.loss.name = "softmax"  # or, for several labels an image, sigmoid, asymmetric, weighted
    config.loss.softmax = ConfigDict()
    config.loss.softmax.label_smoothing = 0.1 if modern else 0.0
    config.loss.weighted = ConfigDict()
    config.loss.weighted.variant = "released"
    config.loss.weighted.group_size = 0
    config.loss.weighted.positive_weight = 12.0
    config.loss.weighted.threshold = 0.7
    config.loss.weighted.negative_selection = 0.1
    config.loss.asymmetric = ConfigDict()
    config.loss.asymmetric.gamma_positive = 0.0
    config.loss.asymmetric.gamma_negative = 4.0
    config.loss.asymmetric.clip = 0.05

    config.learning_rate_for = 0
    config.schedule = ConfigDict()
    config.schedule.name = "cosine" if modern else "staircase"
    config.schedule.staircase = ConfigDict()
    config.schedule.staircase.learning_rate = 0.1  # finetune.sh: lr
    config.schedule.staircase.decay_steps = 150_000 / STEPS  # finetune.sh: lr_decay_step
    config.schedule.staircase.decay_factor = 0.1  # finetune.sh: lr_decay_factor
    config.schedule.cosine = ConfigDict()
    config.schedule.cosine.learning_rate = 0.1
    config.schedule.cosine.warmup_steps = 25_000 / STEPS  # 5 epochs
    config.schedule.cosine.total_steps = 0  # config.total_steps

    config.optimizer = ConfigDict()
    config.optimizer.momentum = 0.9  # flags.py: opt_momentum
    config.optimizer.nesterov = modern
    config.optimizer.weight_decay = 1e-4  # finetune.sh
    config.optimizer.norm_weight_decay = 0.0 if modern else 1e-5  # finetune.py: a tenth of it
    config.optimizer.freeze = () if from_scratch or modern else FIX_BLOCK2
    config.optimizer.learning_rate_factors = ()
    config.optimizer.average_decay = 0.9999 if modern else 0.0

    config.evaluation = ConfigDict()
    config.evaluation.splits = ("val",)
    config.evaluation.batch_size = 256
    config.evaluation.sizes = (224, 299)  # both columns of the published table
    config.evaluation.protocols = ("central",)
    config.evaluation.threshold = 0.7
    config.evaluate_every = 25_000 / STEPS  # about 5 epochs

    config.checkpoint = ConfigDict()
    config.checkpoint.every = 5_000 / STEPS  # an epoch; finetune.sh: snapshot
    config.checkpoint.keep_latest = 3
    config.checkpoint.keep_every = 50_000 / STEPS

    config.input = ConfigDict()
    config.input.num_threads = 16
    config.input.prefetch = 4
    config.input.max_bad_images = 100  # of ImageNet's none is bad

    config.log_every = 100

    config.sharding = ConfigDict()
    config.sharding.name = "replicated"
    config.sharding.min_size = 65_536

    config.init_from = "" if from_scratch else "workdirs/pretrain"  # a workdir, checkpoint or step
    return config
