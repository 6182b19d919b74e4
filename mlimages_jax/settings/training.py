# SPDX-License-Identifier: BSD-3-Clause
"""Settings of a training: the task `train`, and `quickstart`, which may generate its data set.

Defaults are those of the release and the paper (Wu et al., "Tencent ML-Images", 2019) where they
state a value; the recipes in configs/ contain only what differs. Numbers of steps may be given as
fractions of total_steps, which `settings.resolved` converts to whole steps.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from mlimages_jax.settings.fields import setting
from mlimages_jax.settings.rules import (
    Choice,
    Flag,
    Number,
    Pair,
    PathText,
    Records,
    Several,
    Steps,
    Text,
    Whole,
)

LOSSES = ("weighted", "sigmoid", "asymmetric", "focal", "softmax")
ViewName: TypeAlias = Literal["central", "short_side", "ten_crop", "whole"]
VIEWS = get_args(ViewName)
Interpolation: TypeAlias = Literal["linear", "area", "reference"]
DTYPES = ("float32", "bfloat16")
NO_SET = (
    "docs/get_ml_images.md explains how to get ML-Images; from a folder with its dictionary, "
    "train_image_list.txt, val_image_list.txt and images/, mlimages data build ml-images "
    "--manual-dir=FOLDER --data-dir=data builds a set and prints the folder to give; "
    "--config=configs/quickstart.py generates its own"
)
WHERE_CHECKPOINT = "give a workdir, its checkpoints folder, or one step of it"

# XLA aborts the program (SIGABRT) if the size of an array in bytes exceeds 63 bits. With these
# limits the largest array of a network has 2**62 bytes.
BATCH = Whole(1, 2**18)
PIXELS = Whole(1, 2**14)
THREADS = Whole(1, 1_024)
BAD_IMAGES = Whole(0, zero="none")
SIZES = Several(PIXELS, "'(224, 299)'")
CONFIDENCE = Number(0.0, 1.0, above=True)
_CHANNELS = Whole(1, 2**16)
_BLOCKS = Whole(1, 1_000)  # each is traced and compiled separately
_SHARE = Number(0.0, 1.0)
_BELOW_ONE = Number(0.0, 1.0, below=True)
_RATE = Number(0.0)
_WARMUP = Steps(zero="no warm-up", round_down=True)

StepCount: TypeAlias = int  # may be given as a fraction, which `resolved` converts to whole steps


@dataclass(frozen=True, kw_only=True)
class Data:
    """The data set."""

    folder: str = setting(
        PathText(advice=NO_SET),
        "Folder of a built set, as the builders print it. Empty: the quickstart generates one in "
        "the workdir.",
    )
    train_split: str = setting(Text(may_be_empty=False), "Split to train on.", default="train")
    order: str = setting(
        Choice(("global", "streams")),
        "global shuffles all images; with streams each process reads only the files of its own "
        "groups.",
        default="global",
    )
    copy_to: str = setting(
        PathText(must_exist=False),
        "Folder on a local disk to which files are copied once. Empty: they are read in place.",
        default="",
    )
    allow_change: bool = setting(
        Flag(), "Whether a run may resume on another data set.", default=False
    )


@dataclass(frozen=True, kw_only=True)
class Crop:
    """How training images are cropped."""

    area: tuple[float, float] = setting(
        Pair(Number(0.0, 1.0, above=True), "'(0.08, 1.0)'"),
        "Minimum and maximum fraction of the image (train.py: area_cover).",
        default=(0.7, 1.0),
    )
    aspect: tuple[float, float] = setting(
        Pair(Number(0.0, above=True), "'(0.75, 1.33)'"),
        "Minimum and maximum width / height (image_preprocessing.py).",
        default=(0.75, 1.33),
    )
    interpolation: Interpolation = setting(
        Choice(get_args(Interpolation)),
        "linear is not antialiased, as in the original; area is antialiased.",
        default="linear",
    )
    flip: bool = setting(Flag(), "Mirrors half of the images at random.", default=True)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How training images are augmented after cropping."""

    colour: bool = setting(
        Flag(), "Distorts brightness, contrast, ... (image_preprocessing.py).", default=True
    )
    rotation: bool = setting(
        Flag(), "Rotates by up to 45 degrees either way (image_preprocessing.py).", default=True
    )
    rand_augment: int = setting(
        Whole(0, 100, zero="none"),
        "Number of RandAugment operations per image (Cubuk et al., 2020).",
        default=0,
    )
    magnitude: float = setting(Number(0.0, 10.0), "Strength of these operations.", default=9.0)
    mixup: float = setting(Number(0.0), "Alpha of mixup (Zhang et al., 2018); 0: off.", default=0.0)
    cutmix: float = setting(Number(0.0), "Alpha of CutMix (Yun et al., 2019); 0: off.", default=0.0)


@dataclass(frozen=True, kw_only=True)
class Model:
    """The network; --config.model=resnet50 sets its sizes (resnet14, 26, 50, 101, 152, 200).

    Sizes left open are those of init_from, or of ResNet-101 without init_from.
    """

    stage_sizes: tuple[int, ...] = setting(
        Several(_BLOCKS, "'(3, 4, 6, 3)'", repeats=True), "Number of blocks per stage.", default=()
    )
    stage_widths: tuple[int, ...] = setting(
        Several(_CHANNELS, "'(256, 512, 1024, 2048)'", repeats=True),
        "Output channels of each stage.",
        default=(),
    )
    stem_width: int = setting(
        Whole(0, 2**16, zero="that of init_from"), "Output channels of the stem.", default=0
    )
    stem_kernel: int = setting(
        Whole(0, 999, zero="that of init_from"),
        "Side of the stem's kernel in pixels; 3 suits small images.",
        default=0,
    )
    norm_momentum: float = setting(
        _BELOW_ONE,
        "Decay of BatchNorm's running averages per step (flags.py: batch_norm_decay).",
        default=0.997,
    )
    dtype: str = setting(
        Choice(DTYPES),
        "Type of activations; parameters, statistics and loss are float32.",
        default="bfloat16",
    )
    remat: bool = setting(
        Flag(), "Recomputes activations: less memory for a third more compute.", default=False
    )


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """The weighted sigmoid cross-entropy of ML-Images."""

    variant: str = setting(
        Choice(("released", "paper")),
        "The loss of the released script, or the formula of the paper.",
        default="released",
    )
    group_size: int = setting(
        Whole(0, zero="that of config.group_size"), "Images that share class counts.", default=0
    )
    positive_weight: float = setting(
        Number(0.0, above=True),
        "Weight of the positive term (train.py: pos_weight; the paper's eta).",
        default=12.0,
    )
    threshold: float = setting(
        CONFIDENCE,
        "Minimum confidence with which a label makes its class present (train.sh: mask_thres).",
        default=0.7,
    )
    negative_selection: float = setting(
        _SHARE,
        "Fraction of absent classes that count in a step (train.sh: neg_select); released only.",
        default=0.1,
    )


@dataclass(frozen=True, kw_only=True)
class Asymmetric:
    """The asymmetric loss (Ridnik et al., 2021, section 4)."""

    gamma_positive: float = setting(
        Number(0.0), "Focusing exponent of present classes.", default=0.0
    )
    gamma_negative: float = setting(
        Number(0.0), "Focusing exponent of absent classes.", default=4.0
    )
    clip: float = setting(
        _BELOW_ONE, "Subtracted from the probability of absent classes.", default=0.05
    )


@dataclass(frozen=True, kw_only=True)
class Focal:
    """The focal loss (Lin et al., 2017, section 3), for every class by itself."""

    gamma: float = setting(Number(0.0), "Focusing: how little easy classes count.", default=2.0)
    alpha: float = setting(
        Number(0.0, 1.0, above=True, below=True),
        "Weight of present classes; absent ones have 1 - alpha.",
        default=0.25,
    )


@dataclass(frozen=True, kw_only=True)
class Softmax:
    """Cross-entropy for one class per image."""

    label_smoothing: float = setting(
        _BELOW_ONE, "Weight spread over all classes (Szegedy et al., 2016, section 7).", default=0.0
    )


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The loss: softmax for one class per image, the others for several labels."""

    name: str = setting(Choice(LOSSES), "Name of the loss; its section has the arguments.")
    prior_bias: bool = setting(
        Flag(),
        "Whether a new classifier's bias starts from the frequencies of the classes, so that the "
        "first steps need not learn how rare they are.",
        default=False,
    )
    weighted: Weighted = Weighted()
    asymmetric: Asymmetric = Asymmetric()
    focal: Focal = Focal()
    softmax: Softmax = Softmax()


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """The schedule of the release: an exponential warm-up, then a staircase."""

    learning_rate: float = setting(_RATE, "Rate after the warm-up (train.sh: lr, 0.08).")
    decay_steps: StepCount = setting(
        Steps(), "Steps between drops (train.sh: lr_decay_step, 110,000)."
    )
    decay_factor: float = setting(CONFIDENCE, "Factor of each drop (train.py).", default=0.1)
    warmup_steps: StepCount = setting(_WARMUP, "Length of the warm-up (train.sh: 8 epochs).")
    warmup_learning_rate: float = setting(_RATE, "Initial rate (train.sh: lr_warmup, 0.01).")
    warmup_decay_steps: StepCount = setting(
        Steps(), "Steps between rises during the warm-up (train.sh: one epoch)."
    )
    warmup_decay_factor: float = setting(
        Number(0.0, above=True), "Factor of each rise (train.sh: 1.297; 0.01 * 1.297^8 = 0.08)."
    )


@dataclass(frozen=True, kw_only=True)
class Staircase:
    """A rate that drops by a factor at regular intervals."""

    learning_rate: float = setting(_RATE, "Initial rate (finetune.sh: lr, 0.1).")
    decay_steps: StepCount = setting(
        Steps(), "Steps between drops (finetune.sh: lr_decay_step, 150,000)."
    )
    decay_factor: float = setting(
        CONFIDENCE, "Factor of each drop (finetune.sh: lr_decay_factor).", default=0.1
    )


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """A linear warm-up, then cosine decay to 0."""

    learning_rate: float = setting(_RATE, "Rate after the warm-up.")
    warmup_steps: StepCount = setting(_WARMUP, "Length of the warm-up.", default=0)
    total_steps: StepCount = setting(
        Steps(zero="config.total_steps", zero_is_all=True), "Step with rate 0.", default=0
    )


@dataclass(frozen=True, kw_only=True)
class Linear:
    """A linear warm-up, then a straight line down to 0."""

    learning_rate: float = setting(_RATE, "After the warm-up.")
    warmup_steps: StepCount = setting(_WARMUP, "Length of the warm-up.", default=0)
    total_steps: StepCount = setting(
        Steps(zero="config.total_steps", zero_is_all=True), "Where the rate is 0.", default=0
    )


@dataclass(frozen=True, kw_only=True)
class Constant:
    """A linear warm-up, then the same rate to the end."""

    learning_rate: float = setting(_RATE, "After the warm-up.")
    warmup_steps: StepCount = setting(_WARMUP, "Length of the warm-up.", default=0)


@dataclass(frozen=True, kw_only=True)
class OneCycle:
    """Half a cosine up, then half a cosine down (Smith and Topin, 2018)."""

    learning_rate: float = setting(_RATE, "The highest.")
    warmup_steps: StepCount = setting(_WARMUP, "Length of the rise.", default=0.3)
    total_steps: StepCount = setting(
        Steps(zero="config.total_steps", zero_is_all=True), "Where the rate is lowest.", default=0
    )
    initial_divisor: float = setting(
        Number(1.0), "The first rate is the highest one divided by this.", default=25.0
    )
    final_divisor: float = setting(
        Number(1.0), "The last rate is the first one divided by this.", default=1e4
    )


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The learning rate."""

    name: str = setting(
        Choice(("pretraining", "staircase", "cosine", "linear", "constant", "one_cycle")),
        "Name of the schedule; its section has the arguments.",
    )
    pretraining: Pretraining | None = None
    staircase: Staircase | None = None
    cosine: Cosine | None = None
    linear: Linear | None = None
    constant: Constant | None = None
    one_cycle: OneCycle | None = None


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """What turns gradients into updates.

    sgd is the original's. adamw learns small sets faster, with learning rates around 1e-3 and a
    weight decay around 0.01; lamb is for very large batches; lion takes rates 3 to 10 times smaller
    than adamw, and half of its memory.
    """

    name: str = setting(Choice(("sgd", "adamw", "lamb", "lion")), "Which optimizer.", default="sgd")
    beta1: float = setting(
        _BELOW_ONE, "Decay of the mean of gradients: adamw, lamb, lion.", default=0.9
    )
    beta2: float = setting(
        _BELOW_ONE,
        "Decay of the mean of their squares: adamw, lamb; of lion's second mean, usually 0.99.",
        default=0.999,
    )
    epsilon: float = setting(
        Number(0.0, above=True), "Added to the root of that mean: adamw, lamb.", default=1e-8
    )
    clip_norm: float = setting(
        Number(0.0),
        "Largest norm of the gradient of all parameters together, without decay; 0: not clipped.",
        default=0.0,
    )
    momentum: float = setting(_BELOW_ONE, "Momentum of sgd (flags.py: opt_momentum).", default=0.9)
    nesterov: bool = setting(Flag(), "Uses Nesterov momentum.", default=False)
    weight_decay: float = setting(
        _RATE,
        "Decay of kernels and the classifier's bias: L2 with sgd (train.sh), otherwise decoupled "
        "from the gradient.",
        default=1e-4,
    )
    norm_weight_decay: float = setting(
        _RATE, "Decay of BatchNorm's parameters, which train.py excludes.", default=0.0
    )
    freeze: tuple[str, ...] = setting(
        Several(Text(may_be_empty=False), '\'("stem/*", "stage0_*")\'', repeats=True),
        "Patterns of parameters that are not trained.",
        default=(),
    )
    lr_multipliers: tuple[tuple[str, float], ...] = setting(
        Records(
            {"pattern": Text(may_be_empty=False), "factor": Number(0.0, above=True)},
            "'((\"head/*\", 10.0),)'",
        ),
        "Factors of the learning rate by pattern of parameters; the last matching pattern counts.",
        default=(),
    )
    ema_decay: float = setting(
        _BELOW_ONE, "Decay of an EMA of the weights per step; 0: no EMA.", default=0.0
    )


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is evaluated during and after training."""

    splits: tuple[str, ...] = setting(
        Several(Text(may_be_empty=False), "'(\"val\",)'"),
        "Splits to evaluate; the final figures and tables are of the first.",
        default=("val",),
    )
    batch_size: int = setting(BATCH, "Images per batch, over all devices.", default=256)
    sizes: tuple[int, ...] = setting(
        SIZES, "Image sizes in pixels; empty: config.image_size.", default=()
    )
    views: tuple[ViewName, ...] = setting(
        Several(Choice(VIEWS), '\'("central", "short_side")\'', minimum=1),
        "How images are cropped; short_side is the original's, ten_crop averages ten crops.",
        default=("central",),
    )
    threshold: float = setting(
        CONFIDENCE, "Minimum confidence of a true label, as in the loss.", default=0.7
    )


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """When the state is saved, and which checkpoints are kept."""

    every: StepCount = setting(
        Steps(zero="only at the end", zero_is_all=True), "Steps between saves.", default=0.02
    )
    keep_latest: int = setting(Whole(1), "Number of most recent ones to keep.", default=3)
    keep_every: StepCount = setting(
        Steps(zero="only the latest are kept"), "Steps between those kept for good.", default=0
    )


@dataclass(frozen=True, kw_only=True)
class Input:
    """How images are read."""

    num_threads: int = setting(
        THREADS, "Threads per process, each of which prepares full batches.", default=16
    )
    prefetch: int = setting(
        Whole(0), "Batches buffered per process, at least one per thread.", default=4
    )
    max_bad_images: int = setting(
        BAD_IMAGES, "Images that may fail to decode before the run stops.", default=100
    )


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """How the state is sharded over the devices; results do not depend on it."""

    name: str = setting(
        Choice(("replicated", "optimizer", "full")),
        "optimizer is ZeRO-1; full is ZeRO-3 (FSDP).",
        default="replicated",
    )
    min_size: int = setting(Whole(0), "Elements; smaller arrays are replicated.", default=65_536)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A trace of some steps in the workdir's folder `profile`, for TensorBoard's profiler."""

    steps: tuple[int, ...] = setting(
        Several(Whole(1), "'(100, 105)'", repeats=True),
        "First and last step to trace, by their numbers in the log; empty: none.",
        default=(),
    )


@dataclass(frozen=True, kw_only=True)
class Train:
    """A training run."""

    task: str = setting(
        Text(), "train, or quickstart, which may generate its data set.", default="train"
    )
    seed: int = setting(
        Whole(0, 2**32 - 1), "Seed of parameters, order and augmentation.", default=0
    )
    data: Data
    image_size: int = setting(PIXELS, "Side of training images, in pixels.", default=224)
    batch_size: int = setting(BATCH, "Images per step, over all devices.")
    group_size: int = setting(
        Whole(0, zero="the full batch"),
        "Images that share BatchNorm statistics and class counts.",
        default=0,
    )
    accumulate: int = setting(
        Whole(1, 2**12),
        "Parts that a batch is computed in, one after the other, with the same result in less "
        "memory; groups stay whole.",
        default=1,
    )
    total_steps: int = setting(
        Whole(0, zero="only evaluates init_from"), "Total number of updates."
    )
    resize: tuple[tuple[StepCount, int, int], ...] = setting(
        Records(
            {"from step": Steps(), "image size": PIXELS, "batch size": BATCH},
            "'((20000, 299, 128),)'",
        ),
        "Later image and batch sizes: (from step, image size, batch size).",
        default=(),
    )
    crop: Crop = Crop()
    augmentation: Augmentation = Augmentation()
    model: Model = Model()
    loss: Loss
    learning_rate_for: int = setting(
        Whole(0, zero="the rates apply to any batch size"),
        "Batch size for which the rates were chosen; they are scaled by batch_size / this.",
        default=0,
    )
    schedule: Schedule
    optimizer: Optimizer = Optimizer()
    evaluation: Evaluation = Evaluation()
    evaluate_every: StepCount = setting(
        Steps(zero="only at the end"), "Steps between evaluations.", default=0.05
    )
    checkpoint: Checkpoint = Checkpoint()
    input: Input = Input()
    log_every: StepCount = setting(
        Steps(zero="only at the end", zero_is_all=True), "Steps between log lines.", default=100
    )
    sharding: Sharding = Sharding()
    profile: Profile = Profile()
    init_from: str = setting(
        PathText(advice=WHERE_CHECKPOINT),
        "Source of initial weights: a workdir, a checkpoints folder or a step; empty: none.",
        default="",
    )
