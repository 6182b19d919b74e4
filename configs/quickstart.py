# SPDX-License-Identifier: BSD-3-Clause
"""A small ResNet on drawn images: minutes on two CPU cores, nothing to download.

    python -m mlimages_jax.main --config=configs/quickstart.py --workdir=workdirs/quickstart

Every field is explained in configs/pretrain.py.
"""

from ml_collections import ConfigDict

STEPS = 1_100


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.task = "quickstart"
    config.seed = 0

    config.data = ConfigDict()
    config.data.folder = ""  # empty: draw `shapes` into the workdir
    config.data.train_split = "train"
    config.data.order = "global"
    config.data.copy_to = ""
    config.data.allow_change = False

    config.image_size = 48
    config.batch_size = 64
    config.group_size = 64  # of BatchNorm; smaller groups have noisy statistics and learn slower
    config.total_steps = STEPS
    config.resize = ()

    config.crop = ConfigDict()
    config.crop.area = (0.7, 1.0)
    config.crop.aspect = (0.75, 1.33)
    config.crop.interpolation = "area"
    config.crop.flip = True

    config.augmentation = ConfigDict()
    config.augmentation.colour = False  # colours are classes here
    config.augmentation.rotation = False  # a turned square is another class to learn
    config.augmentation.rand_augment = 0
    config.augmentation.magnitude = 9.0
    config.augmentation.mixup = 0.0
    config.augmentation.cutmix = 0.0

    config.model = ConfigDict()
    config.model.stage_sizes = (1, 1, 1)
    config.model.stage_widths = (64, 128, 256)
    config.model.stem_width = 32
    config.model.stem_kernel = 3
    config.model.norm_momentum = 0.9  # few steps: the averages must follow quickly
    config.model.dtype = "float32"
    config.model.remat = False

    config.loss = ConfigDict()
    config.loss.name = "weighted"  # or sigmoid, asymmetric
    config.loss.weighted = ConfigDict()
    config.loss.weighted.variant = "released"
    config.loss.weighted.group_size = 4  # a class of 15% is in half of such groups
    config.loss.weighted.positive_weight = 4.0  # 12 is for classes of one image in a thousand
    config.loss.weighted.threshold = 0.7
    config.loss.weighted.negative_selection = 0.1
    config.loss.softmax = ConfigDict()
    config.loss.softmax.label_smoothing = 0.0

    config.learning_rate_for = 0
    config.schedule = ConfigDict()
    config.schedule.name = "cosine"
    config.schedule.cosine = ConfigDict()
    config.schedule.cosine.learning_rate = 0.1
    config.schedule.cosine.warmup_steps = 100 / STEPS
    config.schedule.cosine.total_steps = 0  # config.total_steps

    config.optimizer = ConfigDict()
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = False
    config.optimizer.weight_decay = 1e-4
    config.optimizer.norm_weight_decay = 0.0
    config.optimizer.freeze = ()
    config.optimizer.learning_rate_factors = ()
    config.optimizer.average_decay = 0.0

    config.evaluation = ConfigDict()
    config.evaluation.splits = ("val",)
    config.evaluation.batch_size = 128
    config.evaluation.sizes = ()
    config.evaluation.protocols = ("whole",)
    config.evaluation.threshold = 0.7
    config.evaluate_every = 0.5

    config.checkpoint = ConfigDict()
    config.checkpoint.every = 0.5
    config.checkpoint.keep_latest = 2
    config.checkpoint.keep_every = 0

    config.input = ConfigDict()
    config.input.num_threads = 2
    config.input.prefetch = 8
    config.input.max_bad_images = 10

    config.log_every = 100

    config.sharding = ConfigDict()
    config.sharding.name = "replicated"
    config.sharding.min_size = 65_536

    config.init_from = ""
    return config
