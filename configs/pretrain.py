# SPDX-License-Identifier: BSD-3-Clause
"""Pretraining on ML-Images: ResNet-101, weighted sigmoid cross-entropy.

Wu et al., "Tencent ML-Images: A Large-Scale Multi-Label Image Database for Visual Representation
Learning" (2019), and the released train.py and train.sh.

    python -m mlimages_jax.main --config=configs/pretrain.py:released --workdir=W
    python -m mlimages_jax.main --config=configs/pretrain.py:paper --workdir=W

Variants: `released`, the loss and schedule of the published script; `paper`, the loss as the
paper writes it. Both run 60 epochs with batch 4,096 as 128 groups of 32, the paper's 128 workers.
The paper trained for 90 hours on 128 P40 GPUs. 60 epochs are 1.06e9 images and, at 47.2 GFLOP
each, 5e19 floating-point operations.

Settings that count steps may be fractions of total_steps (0.1: a tenth of the run), as those of the
recipe are: with another total_steps its schedule is the same, shorter or longer. For another batch
size --config.learning_rate_for=4096 multiplies the rates by batch_size / 4,096. One value chooses
the network, --config.model=resnet50 (resnet14, 26, 50, 101, 152, 200); its sizes also by hand.
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
    config = ConfigDict()
    config.task = "train"
    config.seed = 0

    config.data = ConfigDict()
    config.data.folder = "data/ml_images/released_320/1.0.0"  # what tfds_builders.ml_images prints
    config.data.train_split = "train"
    config.data.order = "global"  # or streams: a process reads the files of its own groups only
    config.data.copy_to = ""  # a folder of a local disk, to read copies there that are made once
    config.data.allow_change = False  # True: a restart may go on with another data set

    config.image_size = 224  # pixels
    config.batch_size = BATCH  # images, over all devices
    config.group_size = 32  # images that share BatchNorm statistics and class counts: one worker
    config.total_steps = STEPS  # 0: only init_from is evaluated
    config.resize = ()  # further sizes: ((from step, image size, batch size), ...)

    config.crop = ConfigDict()
    config.crop.area = (0.7, 1.0)  # share of the image, train.py: area_cover
    config.crop.aspect = (0.75, 1.33)  # width / height, image_preprocessing.py
    config.crop.interpolation = "linear"  # not antialiased, like the original; or area, reference
    config.crop.flip = True

    config.augmentation = ConfigDict()
    config.augmentation.colour = True  # image_preprocessing.py: distort_color
    config.augmentation.rotation = True  # image_preprocessing.py: +-45 degrees
    config.augmentation.rand_augment = 0  # operations an image (Cubuk et al., 2020); 0: none
    config.augmentation.magnitude = 9.0  # of these operations, 0 to 10
    config.augmentation.mixup = 0.0  # alpha (Zhang et al., 2018); 0: off
    config.augmentation.cutmix = 0.0  # alpha (Yun et al., 2019); 0: off

    config.model = ConfigDict()
    config.model.stage_sizes = (3, 4, 23, 3)  # ResNet-101
    config.model.stage_widths = (256, 512, 1024, 2048)
    config.model.stem_width = 64
    config.model.stem_kernel = 7
    config.model.norm_momentum = 0.997  # flags.py: batch_norm_decay
    config.model.dtype = "bfloat16"  # of activations; parameters, statistics and loss are float32
    config.model.remat = False  # True: less memory for a third more compute

    config.loss = ConfigDict()
    config.loss.name = "weighted"  # or sigmoid, asymmetric, softmax
    config.loss.weighted = ConfigDict()
    config.loss.weighted.variant = variant
    config.loss.weighted.group_size = 0  # images that share class counts; 0: config.group_size
    config.loss.weighted.positive_weight = 12.0  # train.py: pos_weight; paper: eta
    config.loss.weighted.threshold = 0.7  # train.sh: mask_thres
    config.loss.weighted.negative_selection = 0.1  # train.sh: neg_select; `released` only
    config.loss.asymmetric = ConfigDict()  # Ridnik et al., 2021, section 4
    config.loss.asymmetric.gamma_positive = 0.0
    config.loss.asymmetric.gamma_negative = 4.0
    config.loss.asymmetric.clip = 0.05
    config.loss.softmax = ConfigDict()  # for one class an image
    config.loss.softmax.label_smoothing = 0.0  # Szegedy et al., 2016, section 7

    config.learning_rate_for = 0  # batch size that the rates are for; 0: they stay as they are
    config.schedule = ConfigDict()
    config.schedule.name = "pretraining"  # or staircase, cosine, with a section of that name
    config.schedule.pretraining = ConfigDict()
    config.schedule.pretraining.learning_rate = 0.08  # train.sh: lr
    config.schedule.pretraining.decay_steps = 110_000 / STEPS  # train.sh: lr_decay_step
    config.schedule.pretraining.decay_factor = 0.1  # train.py
    config.schedule.pretraining.warmup_steps = 35_200 / STEPS  # train.sh: 8 epochs of 4,400 steps
    config.schedule.pretraining.warmup_learning_rate = 0.01  # train.sh: lr_warmup
    config.schedule.pretraining.warmup_decay_steps = 4_400 / STEPS  # train.sh: one epoch
    config.schedule.pretraining.warmup_decay_factor = 1.297  # train.sh: 0.01 * 1.297^8 = 0.08

    config.optimizer = ConfigDict()
    config.optimizer.momentum = 0.9  # flags.py: opt_momentum
    config.optimizer.nesterov = False
    config.optimizer.weight_decay = 1e-4  # train.sh: L2 on kernels and the classifier's bias
    config.optimizer.norm_weight_decay = 0.0  # train.py leaves BatchNorm out
    config.optimizer.freeze = ()  # patterns of parameters that stay: ("stem/*", "stage0_*")
    config.optimizer.learning_rate_factors = ()  # (("head/*", 10.0), ...), the last match counts
    config.optimizer.average_decay = 0.0  # of moving averages of the weights; 0: none are kept

    config.evaluation = ConfigDict()
    config.evaluation.splits = ("val",)  # images and tables at the end are of the first
    config.evaluation.batch_size = 1_024
    config.evaluation.sizes = ()  # pixels; none: config.image_size
    config.evaluation.protocols = ("central",)  # or short_side, ten_crop, whole
    config.evaluation.threshold = 0.7  # confidence from which a label is true, as in the loss
    config.evaluate_every = 4_400 / STEPS  # about an epoch; 0: only at the end

    config.checkpoint = ConfigDict()
    config.checkpoint.every = 1_000 / STEPS  # 0: only at the end
    config.checkpoint.keep_latest = 3  # 1 or more
    config.checkpoint.keep_every = 44_000 / STEPS  # about 10 epochs; 0: none of them

    config.input = ConfigDict()
    config.input.num_threads = 16  # a process; each makes a whole batch
    config.input.prefetch = 4  # batches held ready, at least one a thread
    config.input.max_bad_images = 10_000  # images that may fail to decode before the run stops

    config.log_every = 100  # steps; 0: only at the end

    config.sharding = ConfigDict()  # of the state over the devices; results do not depend on it
    config.sharding.name = "replicated"  # or optimizer (ZeRO-1), full (ZeRO-3, FSDP)
    config.sharding.min_size = 65_536  # elements; smaller leaves stay whole everywhere

    config.init_from = ""  # a workdir, a checkpoint folder or a step to take the weights from
    return config
