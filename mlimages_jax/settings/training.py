# SPDX-License-Identifier: BSD-3-Clause
"""Settings of a training: the task `train`, and `quickstart`, which may generate its data set.

Defaults are those of the release and the paper (Wu et al., "Tencent ML-Images", 2019) where they
state a value; the recipes in configs/ contain only what differs. Numbers of steps may be given as
fractions of total_steps, which `settings.resolved` converts to whole steps.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from mlimages_jax.monitoring.trackers import TRACKERS
from mlimages_jax.settings.compound_rules import Pair, Records, Several
from mlimages_jax.settings.fields import setting
from mlimages_jax.settings.losses import CONFIDENCE, Loss
from mlimages_jax.settings.optimization import Optimizer, Schedule, StepCount
from mlimages_jax.settings.rules import (
    BELOW_ONE,
    Choice,
    Flag,
    Number,
    PathText,
    Steps,
    Text,
    Whole,
)

ViewName: TypeAlias = Literal["central", "short_side", "ten_crop", "whole"]
VIEWS = get_args(ViewName)
Interpolation: TypeAlias = Literal["linear", "area", "reference"]
DTYPES = ("float32", "bfloat16")
NO_SET = (
    "docs/get_ml_images.md explains how to get ML-Images; from a folder with its dictionary, "
    "train_image_list.txt, val_image_list.txt and images/, mlimages data build ml-images "
    "--manual-dir=FOLDER --data-dir=data builds a set and prints the folder to give; "
    "--config=quickstart generates its own"
)
WHERE_CHECKPOINT = "give a workdir, its checkpoints folder, or one step of it"

# XLA aborts the program (SIGABRT) if the size of an array in bytes exceeds 63 bits. With these
# limits the largest array of a network has 2**62 bytes, which only raises an error.
BATCH = Whole(1, 2**18)
PIXELS = Whole(1, 2**14)
AREA = Pair(Number(0.0, 1.0, above=True), "'(0.08, 1.0)'")
HUE = Number(0.0, 0.5)
OPERATIONS = Whole(0, 100, zero="none")
THREADS = Whole(1, 1_024)
WORKERS = Whole(0, 256, zero="none")
WORKERS_MEAN = (
    "Worker processes that read and decode, sharing the threads; 0: threads of the process itself, "
    "which end near 3,000 images/s."
)
BAD_IMAGES = Whole(0, zero="none")
SIZES = Several(PIXELS, "'(224, 299)'")
_CHANNELS = Whole(1, 2**16)
_BLOCKS = Whole(1, 1_000)  # each is traced and compiled separately


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
    fold: tuple[int, ...] = setting(
        Several(Whole(), "'(0, 3)'", repeats=True),
        "(i, n): trains without part i (from 0) of n equal parts of the split; empty: with all.",
        default=(),
    )
    allow_change: bool = setting(
        Flag(), "Allows a run to resume on another data set.", default=False
    )


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Random crops of training images."""

    area: tuple[float, float] = setting(
        AREA,
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
    """Augmentation of training images after cropping."""

    colour: bool = setting(
        Flag(), "Distorts brightness, contrast, ... (image_preprocessing.py).", default=True
    )
    hue: float = setting(
        HUE,
        "Largest rotation of the hue, in turns of the colour circle; 0 where colours tell classes "
        "apart (image_preprocessing.py: 0.2).",
        default=0.2,
    )
    rotation: bool = setting(
        Flag(), "Rotates by up to 45 degrees either way (image_preprocessing.py).", default=True
    )
    rand_augment: int = setting(
        OPERATIONS,
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
        BELOW_ONE,
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
class Evaluation:
    """Evaluations during and after training."""

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
    keep_latest: int = setting(Whole(1), "Number of most recent checkpoints to keep.", default=3)
    keep_every: StepCount = setting(
        Steps(zero="only the latest are kept"),
        "Steps between checkpoints that are kept permanently.",
        default=0,
    )
    best: str = setting(
        Text(),
        "Metric, such as val/mAP, or val_averaged/mAP for the EMA weights. Its best checkpoint is "
        "kept too, and load() and the other tasks use it. Higher is better, except for losses and "
        "errors. Empty: they use the latest.",
        default="",
    )


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """When a training ends before its last step."""

    patience: int = setting(
        Whole(0, zero="never"),
        "Evaluations in succession that do not improve checkpoint.best before the run ends.",
        default=0,
    )


@dataclass(frozen=True, kw_only=True)
class Input:
    """Reading and decoding of images."""

    num_threads: int = setting(
        THREADS, "Threads per process, each of which prepares full batches.", default=16
    )
    num_workers: int = setting(WORKERS, WORKERS_MEAN, default=0)
    prefetch: int = setting(
        Whole(0), "Batches buffered per process, at least one per thread.", default=4
    )
    max_bad_images: int = setting(
        BAD_IMAGES, "Images that may fail to decode before the run stops.", default=100
    )


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """Sharding of the state over the devices; results do not depend on it."""

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
class Tracking:
    """Experiment trackers, beside TensorBoard and metrics.jsonl; each is an extra of that name."""

    names: tuple[str, ...] = setting(
        Several(Choice(tuple(TRACKERS)), "'(\"wandb\",)'"),
        "Trackers to send metrics, images and tables to: wandb, mlflow, trackio.",
        default=(),
    )
    project: str = setting(
        Text(may_be_empty=False),
        "Project, or experiment; the run is named after the workdir.",
        default="mlimages",
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
    early_stopping: EarlyStopping = EarlyStopping()
    input: Input = Input()
    log_every: StepCount = setting(
        Steps(zero="only at the end", zero_is_all=True), "Steps between log lines.", default=100
    )
    sharding: Sharding = Sharding()
    profile: Profile = Profile()
    tracking: Tracking = Tracking()
    compile_only: bool = setting(
        Flag(),
        "Compile the step for every image size, keep the programs for the next start, and exit.",
        default=False,
    )
    init_from: str = setting(
        PathText(advice=WHERE_CHECKPOINT),
        "Source of initial weights: a workdir, a checkpoints folder or a step; empty: none.",
        default="",
    )
