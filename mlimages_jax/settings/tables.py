# SPDX-License-Identifier: BSD-3-Clause
"""The rule of every setting of every task, by its name. What each is for stands in configs/."""

from collections.abc import Mapping

from mlimages_jax.settings.rules import (
    Choice,
    Flag,
    Number,
    Pair,
    PathText,
    Records,
    Rule,
    Several,
    Steps,
    Text,
    Whole,
)

Table = Mapping[str, Rule]

LOSSES = ("weighted", "sigmoid", "asymmetric", "softmax")
VIEWS = ("central", "short_side", "ten_crop", "whole")
DTYPES = ("float32", "bfloat16")
NO_SET = (
    "docs/get_ml_images.md says how to get ML-Images; from a folder with its dictionary, "
    "train_image_list.txt, val_image_list.txt and images/, python -m tfds_builders.ml_images "
    "--manual_dir=FOLDER --data_dir=data builds a set and prints the folder to give; "
    "--config=configs/quickstart.py draws its own"
)
WHERE_CHECKPOINT = "give a workdir, its checkpoints folder, or one step of it"
WHERE_IMAGES = "give a folder of images, a list of them, one image, or the folder of a built set"

_POSITIVE = Whole(1)
# XLA ends the program, by SIGABRT, where the bytes of an array do not fit into 63 bits: at these
# bounds the largest of a network has 2**62.
_BATCH = Whole(1, 2**18)
_PIXELS = Whole(1, 2**14)
_CHANNELS = Whole(1, 2**16)
_BLOCKS = Whole(1, 1_000)  # each is traced and compiled for itself
_THREADS = Whole(1, 1_024)
_SHARE = Number(0.0, 1.0)
_BELOW_ONE = Number(0.0, 1.0, below=True)
_RATE = Number(0.0)
_EXIF = Flag(none="as the checkpoint was trained")
_FACTOR = Number(0.0, 1.0, above=True)
_DECAY_STEPS = Steps()
_WARMUP_STEPS = Steps(zero="no warm-up", round_down=True)
_SIZES = Several(_PIXELS, "'(224, 299)'")
_PROTOCOLS = Several(Choice(VIEWS), '\'("central", "short_side")\'', minimum=1)


def _section(section: str, /, **rules: Rule) -> dict[str, Rule]:
    return {f"{section}.{field}": rule for field, rule in rules.items()}


_DATA = _section(
    "data",
    folder=PathText(advice=NO_SET),
    train_split=Text(may_be_empty=False),
    order=Choice(("global", "streams")),
    copy_to=PathText(must_exist=False),
    allow_change=Flag(),
)

_VIEW = {
    "image_size": _PIXELS,
    "resize": Records(
        {"from step": Steps(), "image size": _PIXELS, "batch size": _BATCH},
        "'((20000, 299, 128),)'",
    ),
    **_section(
        "crop",
        area=Pair(Number(0.0, 1.0, above=True), "'(0.08, 1.0)'"),
        aspect=Pair(Number(0.0, above=True), "'(0.75, 1.33)'"),
        interpolation=Choice(("linear", "area", "reference")),
        flip=Flag(),
    ),
    **_section(
        "augmentation",
        colour=Flag(),
        rotation=Flag(),
        rand_augment=Whole(0, 100, zero="none"),
        magnitude=Number(0.0, 10.0),
        mixup=Number(0.0),
        cutmix=Number(0.0),
    ),
}

_NETWORK = _section(
    "model",
    stage_sizes=Several(_BLOCKS, "'(3, 4, 6, 3)'", repeats=True),
    stage_widths=Several(_CHANNELS, "'(256, 512, 1024, 2048)'", repeats=True),
    stem_width=Whole(0, 2**16, zero="that of init_from"),
    stem_kernel=Whole(0, 999, zero="that of init_from"),
    norm_momentum=_BELOW_ONE,
    dtype=Choice(DTYPES),
    remat=Flag(),
)

_LOSS = {
    "loss.name": Choice(LOSSES),
    **_section(
        "loss.weighted",
        variant=Choice(("released", "paper")),
        group_size=Whole(0, zero="that of config.group_size"),
        positive_weight=Number(0.0, above=True),
        threshold=_FACTOR,
        negative_selection=_SHARE,
    ),
    **_section(
        "loss.asymmetric",
        gamma_positive=Number(0.0),
        gamma_negative=Number(0.0),
        clip=_BELOW_ONE,
    ),
    **_section("loss.softmax", label_smoothing=_BELOW_ONE),
}

_SCHEDULE = {
    "schedule.name": Choice(("pretraining", "staircase", "cosine")),
    "learning_rate_for": Whole(0, zero="the rates hold for any batch size"),
    **_section(
        "schedule.pretraining",
        learning_rate=_RATE,
        decay_steps=_DECAY_STEPS,
        decay_factor=_FACTOR,
        warmup_steps=_WARMUP_STEPS,
        warmup_learning_rate=_RATE,
        warmup_decay_steps=_DECAY_STEPS,
        warmup_decay_factor=Number(0.0, above=True),
    ),
    **_section(
        "schedule.staircase",
        learning_rate=_RATE,
        decay_steps=_DECAY_STEPS,
        decay_factor=_FACTOR,
    ),
    **_section(
        "schedule.cosine",
        learning_rate=_RATE,
        warmup_steps=_WARMUP_STEPS,
        total_steps=Steps(zero="config.total_steps", zero_is_all=True),
    ),
}

_OPTIMIZER = _section(
    "optimizer",
    momentum=_BELOW_ONE,
    nesterov=Flag(),
    weight_decay=_RATE,
    norm_weight_decay=_RATE,
    freeze=Several(Text(may_be_empty=False), '\'("stem/*", "stage0_*")\'', repeats=True),
    learning_rate_factors=Records(
        {"pattern": Text(may_be_empty=False), "factor": Number(0.0, above=True)},
        "'((\"head/*\", 10.0),)'",
    ),
    average_decay=_BELOW_ONE,
)

TRAIN: Table = {
    "task": Text(),
    "seed": Whole(0, 2**32 - 1),
    **_DATA,
    **_VIEW,
    "batch_size": _BATCH,
    "group_size": Whole(0, zero="the whole batch"),
    "total_steps": Whole(0, zero="only the evaluation of init_from"),
    **_NETWORK,
    **_LOSS,
    **_SCHEDULE,
    **_OPTIMIZER,
    **_section(
        "evaluation",
        splits=Several(Text(may_be_empty=False), "'(\"val\",)'"),
        batch_size=_BATCH,
        sizes=_SIZES,
        protocols=_PROTOCOLS,
        threshold=_FACTOR,
    ),
    "evaluate_every": Steps(zero="only at the end"),
    **_section(
        "checkpoint",
        every=Steps(zero="only at the end", zero_is_all=True),
        keep_latest=_POSITIVE,
        keep_every=Steps(zero="only the latest are kept"),
    ),
    **_section(
        "input", num_threads=_THREADS, prefetch=Whole(0), max_bad_images=Whole(0, zero="none")
    ),
    "log_every": Steps(zero="only at the end", zero_is_all=True),
    **_section("sharding", name=Choice(("replicated", "optimizer", "full")), min_size=Whole(0)),
    "init_from": PathText(advice=WHERE_CHECKPOINT),
}

EVALUATE: Table = {
    "task": Text(),
    "exif_orientation": _EXIF,
    "checkpoint": PathText(may_be_empty=False, advice=WHERE_CHECKPOINT),
    "which": Choice(("latest", "all", "new")),
    "poll_seconds": Number(0.0, above=True),
    "wait_minutes": Number(0.0),
    "averaged": Flag(),
    **_section(
        "data",
        folder=PathText(may_be_empty=False, advice=NO_SET),
        copy_to=PathText(must_exist=False),
        split=Text(may_be_empty=False),
        reassessed=PathText(),
    ),
    **_section(
        "evaluation",
        sizes=_SIZES,
        protocols=Several(Choice(VIEWS), '\'("central", "short_side")\''),
        batch_size=_BATCH,
        threshold=_FACTOR,
    ),
    "loss": Choice((*LOSSES, "")),
    "dtype": Choice(DTYPES),
    **_section("input", num_threads=_THREADS, max_bad_images=Whole(0, zero="none")),
}

_IMAGES = {
    "task": Text(),
    "checkpoint": PathText(may_be_empty=False, advice=WHERE_CHECKPOINT),
    "input": PathText(may_be_empty=False, advice=WHERE_IMAGES),
    "split": Text(),
    "images_root": PathText(),
    "exif_orientation": _EXIF,
    "view.protocol": Choice((*VIEWS, "")),
    "view.size": Whole(0, 2**14, zero="as the checkpoint was trained"),
    "dtype": Choice(DTYPES),
    "batch_size": _BATCH,
    "num_threads": _THREADS,
    "max_errors": Whole(-1),
}

CLASSIFY: Table = {
    **_IMAGES,
    "dictionary": PathText(),
    "loss": Choice((*LOSSES, "")),
    "output": PathText(must_exist=False),
    "format": Choice(("jsonl", "csv", "parquet", "label_pred", "")),
    "top_k": Whole(0, zero="no bound"),
    "threshold": _SHARE,
    "thresholds": PathText(),
    "consistent": Flag(),
}

EXPORT: Table = {
    **_IMAGES,
    "averaged": Flag(),
    "outputs": Several(Text(may_be_empty=False), '\'("features", "logits")\'', minimum=1),
    "format": Choice(("parquet", "npy", "npz", "array_record")),
    "stored_dtype": Choice(("float32", "float16")),
    "rows_per_part": _POSITIVE,
}

TABLES: Mapping[str, Table] = {
    "train": TRAIN,
    "quickstart": TRAIN,
    "evaluate": EVALUATE,
    "classify": CLASSIFY,
    "export_features": EXPORT,
}
