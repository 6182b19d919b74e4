# SPDX-License-Identifier: BSD-3-Clause
"""The settings of every task: of a training, and here of what uses its checkpoints."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from mlimages_jax.settings.fields import Table, setting, table_of_fields
from mlimages_jax.settings.rules import Choice, Flag, Number, PathText, Several, Text, Whole
from mlimages_jax.settings.training import (
    BAD_IMAGES,
    BATCH,
    CONFIDENCE,
    DTYPES,
    LOSSES,
    NO_SET,
    SIZES,
    THREADS,
    VIEWS,
    WHERE_CHECKPOINT,
    Train,
    ViewName,
)

_WHERE_IMAGES = "give a folder of images, a list of them, one image, or the folder of a built set"
_CHECKPOINT = PathText(may_be_empty=False, advice=WHERE_CHECKPOINT)
_OPEN_LOSS = Choice((*LOSSES, ""))
_EXIF = Flag(none="as the checkpoint was trained")

_CHECKPOINT_MEANS = "A workdir, a checkpoint folder or a step."
_DTYPE_MEANS = "Of activations; bfloat16 is faster and a little less exact."
_BATCH_MEANS = "Images, over all devices; ten_crop holds ten times it."
_LOSS_MEANS = "Empty: the checkpoint's."
_AVERAGED_MEANS = "Uses the averaged weights (EMA), where the checkpoint has some."


@dataclass(frozen=True, kw_only=True)
class EvaluationData:
    """The data set."""

    folder: str = setting(PathText(may_be_empty=False, advice=NO_SET), "Folder of a built set.")
    copy_to: str = setting(
        PathText(must_exist=False),
        "Folder of a local disk that the files are copied to once; empty: read in place.",
        default="",
    )
    split: str = setting(Text(may_be_empty=False), "Split to evaluate on.", default="val")
    reassessed: str = setting(
        PathText(), "A JSON file of valid classes an image (ReaL's real.json).", default=""
    )


@dataclass(frozen=True, kw_only=True)
class Views:
    """How images are cut, and what is counted."""

    sizes: tuple[int, ...] = setting(
        SIZES,
        "Pixels. Empty: as the checkpoint's training evaluated, else the size it was trained at.",
        default=(),
    )
    views: tuple[ViewName, ...] = setting(
        Several(Choice(VIEWS), '\'("central", "short_side")\''),
        "Empty: as the checkpoint's training evaluated, else central and short_side.",
        default=(),
    )
    batch_size: int = setting(BATCH, _BATCH_MEANS, default=256)
    threshold: float = setting(CONFIDENCE, "Confidence from which a label is true.", default=0.7)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How images come in."""

    num_threads: int = setting(THREADS, "A process; each makes a whole batch.", default=16)
    max_bad_images: int = setting(
        BAD_IMAGES, "Images that may fail to decode before it stops.", default=1_000
    )


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """An evaluation of checkpoints on a data set."""

    task: str = setting(Text(), "evaluate.", default="evaluate")
    checkpoint: str = setting(_CHECKPOINT, _CHECKPOINT_MEANS)
    which: str = setting(
        Choice(("latest", "all", "new")),
        "new: as they appear, until the run's last step.",
        default="latest",
    )
    poll_seconds: float = setting(
        Number(0.0, above=True), "Seconds between two looks for new ones.", default=30.0
    )
    wait_minutes: float = setting(
        Number(0.0), "Minutes without a new one, after which it ends.", default=120.0
    )
    averaged: bool = setting(Flag(), _AVERAGED_MEANS, default=True)
    data: EvaluationData
    evaluation: Views = Views()
    exif_orientation: bool | None = setting(
        _EXIF,
        "Turns images upright by EXIF; None: as the checkpoint was trained. It concerns sets that "
        "were built with --orientation=stored.",
        default=None,
    )
    loss: str = setting(_OPEN_LOSS, _LOSS_MEANS, default="")
    dtype: str = setting(Choice(DTYPES), _DTYPE_MEANS, default="float32")
    input: Reading = Reading()


@dataclass(frozen=True, kw_only=True)
class View:
    """How images are cut."""

    protocol: ViewName | Literal[""] = setting(
        Choice((*VIEWS, "")),
        "ten_crop is averaged, short_side the original's; empty: as the training evaluated, and "
        "short_side where the checkpoint does not say.",
        default="",
    )
    size: int = setting(Whole(0, 2**14, zero="as the checkpoint was trained"), "Pixels.", default=0)


@dataclass(frozen=True, kw_only=True)
class _OnImages:
    """What a task on images of any kind needs."""

    task: str = setting(Text(), "classify or export_features.")
    checkpoint: str = setting(_CHECKPOINT, _CHECKPOINT_MEANS)
    input: str = setting(
        PathText(may_be_empty=False, advice=_WHERE_IMAGES),
        "A folder of images, a list of them, one image, or the folder of a built set.",
    )
    split: str = setting(Text(), "Of a built set.", default="")
    images_root: str = setting(
        PathText(), "Where the paths of a list begin; empty: at the list's folder.", default=""
    )
    exif_orientation: bool | None = setting(
        _EXIF,
        "Turns images upright by EXIF; None: as the checkpoint was trained. Where it does not say, "
        "files are turned, and images of a built set are not.",
        default=None,
    )
    view: View = View()
    dtype: str = setting(Choice(DTYPES), _DTYPE_MEANS, default="float32")
    batch_size: int = setting(BATCH, _BATCH_MEANS, default=256)
    num_threads: int = setting(THREADS, "Threads that read and decode.", default=16)
    max_errors: int = setting(
        Whole(-1),
        "Unreadable images of a process before it ends; -1: any number.",
        default=-1,
    )


@dataclass(frozen=True, kw_only=True)
class Classify(_OnImages):
    """Tags of images, to a file."""

    dictionary: str = setting(
        PathText(), "Category file; empty: the one in the checkpoint's workdir.", default=""
    )
    loss: str = setting(_OPEN_LOSS, _LOSS_MEANS, default="")
    output: str = setting(
        PathText(must_exist=False),
        "A file ending in .jsonl, .csv, .parquet or .txt; empty: in the workdir.",
        default="",
    )
    format: str = setting(
        Choice(("jsonl", "csv", "parquet", "label_pred", "")),
        "label_pred is the original's; empty: by the ending. In csv a text that a spreadsheet "
        "would take for a formula begins with '.",
        default="",
    )
    top_k: int = setting(Whole(0, zero="no bound"), "Tags of an image at most.", default=5)
    threshold: float = setting(Number(0.0, 1.0), "Probability that a tag needs.", default=0.0)
    thresholds: str = setting(
        PathText(), "File of single classes: WordNet id or index, tab, threshold.", default=""
    )
    consistent: bool = setting(
        Flag(), "First lowers what is above one of its ancestors to it.", default=False
    )


@dataclass(frozen=True, kw_only=True)
class Export(_OnImages):
    """Features of images, to files."""

    averaged: bool = setting(Flag(), _AVERAGED_MEANS, default=True)
    outputs: tuple[str, ...] = setting(
        Several(Text(may_be_empty=False), '\'("features", "logits")\'', minimum=1),
        "features (pooled, 2,048), logits, and stage0, stage1, ... (outputs of stages, pooled).",
        default=("features",),
    )
    format: str = setting(
        Choice(("parquet", "npy", "npz", "array_record")), "Of the files.", default="parquet"
    )
    stored_dtype: str = setting(
        Choice(("float32", "float16")), "Of the stored numbers.", default="float32"
    )
    rows_per_part: int = setting(
        Whole(1),
        "A whole part is made by one process, and lost when it is killed.",
        default=2_048,
    )


Settings: TypeAlias = Train | Evaluate | Classify | Export

TASKS: Mapping[str, type[Settings]] = {
    "train": Train,
    "quickstart": Train,
    "evaluate": Evaluate,
    "classify": Classify,
    "export_features": Export,
}
TABLES: Mapping[str, Table] = {name: table_of_fields(kind) for name, kind in TASKS.items()}
