# SPDX-License-Identifier: BSD-3-Clause
"""Settings of the tasks that use checkpoints, and the table of all tasks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from mlimages_jax.settings.compound_rules import Open, Several
from mlimages_jax.settings.fields import Table, setting, table_of_fields
from mlimages_jax.settings.losses import CONFIDENCE, LOSSES
from mlimages_jax.settings.rules import Choice, Flag, Number, PathText, Text, Whole
from mlimages_jax.settings.tagger import Suspects, Tagger
from mlimages_jax.settings.threshold_search import ThresholdSearch
from mlimages_jax.settings.training import (
    BAD_IMAGES,
    BATCH,
    DTYPES,
    NO_SET,
    SIZES,
    THREADS,
    VIEWS,
    WHERE_CHECKPOINT,
    WORKERS,
    WORKERS_MEAN,
    Train,
    ViewName,
)

_WHERE_IMAGES = "give a folder of images, a list of them, one image, or the folder of a built set"
_CHECKPOINT = PathText(may_be_empty=False, advice=WHERE_CHECKPOINT)
_OPEN_LOSS = Choice((*LOSSES, ""))
_TOP_K = Open(
    Whole(0, zero="no limit"),
    "by the model: 1 for one class per image, no limit where every class has a threshold, else 5",
    -1,
)
_EXIF = Flag(none="as the checkpoint was trained")

_CHECKPOINT_MEANS = "A workdir, a checkpoints folder or a step."
_BEST_CHECKPOINT_MEANS = (
    "A workdir, a checkpoints folder or a step; of several steps the best one if the training "
    "recorded it (checkpoint.best), else the latest."
)
_DTYPE_MEANS = "Type of activations; bfloat16 is faster and slightly less exact."
_BATCH_MEANS = "Images per batch, over all devices; ten_crop needs ten times the memory."
_LOSS_MEANS = "Loss of the training; empty: the checkpoint's."
_EMA_MEANS = "Uses the EMA weights if the checkpoint has them."


@dataclass(frozen=True, kw_only=True)
class EvaluationData:
    """The data set."""

    folder: str = setting(PathText(may_be_empty=False, advice=NO_SET), "Folder of a built set.")
    copy_to: str = setting(
        PathText(must_exist=False),
        "Folder on a local disk to which files are copied once. Empty: they are read in place.",
        default="",
    )
    split: str = setting(Text(may_be_empty=False), "Split to evaluate on.", default="val")
    real_labels: str = setting(
        PathText(), "A JSON file of valid classes per image (real.json of ReaL).", default=""
    )


@dataclass(frozen=True, kw_only=True)
class Views:
    """Views to evaluate, and the labels that count."""

    sizes: tuple[int, ...] = setting(
        SIZES,
        "Image sizes in pixels. Empty: those of the training's evaluations, else of its images.",
        default=(),
    )
    views: tuple[ViewName, ...] = setting(
        Several(Choice(VIEWS), '\'("central", "short_side")\''),
        "Crops. Empty: those of the training's evaluations, else central and short_side.",
        default=(),
    )
    batch_size: int = setting(BATCH, _BATCH_MEANS, default=256)
    threshold: float = setting(CONFIDENCE, "Minimum confidence of a true label.", default=0.7)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Reading and decoding of images."""

    num_threads: int = setting(
        THREADS, "Threads per process, each of which prepares full batches.", default=16
    )
    num_workers: int = setting(WORKERS, WORKERS_MEAN, default=0)
    max_bad_images: int = setting(
        BAD_IMAGES, "Images that may fail to decode before the task stops.", default=1_000
    )


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """An evaluation of checkpoints on a data set."""

    task: str = setting(Text(), "evaluate.", default="evaluate")
    checkpoint: str = setting(_CHECKPOINT, _CHECKPOINT_MEANS)
    which: str = setting(
        Choice(("latest", "best", "all", "new")),
        "Which checkpoints; best is by the training's checkpoint.best; new waits for those of a "
        "running training, until its last step.",
        default="latest",
    )
    poll_seconds: float = setting(
        Number(0.0, above=True), "Seconds between searches for new ones.", default=30.0
    )
    wait_minutes: float = setting(
        Number(0.0), "Minutes to wait for a new one before the task ends.", default=120.0
    )
    ema: bool = setting(Flag(), _EMA_MEANS, default=True)
    data: EvaluationData
    evaluation: Views = Views()
    exif_orientation: bool | None = setting(
        _EXIF,
        "Applies the EXIF orientation; None: as the checkpoint was trained. Only affects sets "
        "built with --orientation=stored.",
        default=None,
    )
    loss: str = setting(_OPEN_LOSS, _LOSS_MEANS, default="")
    dtype: str = setting(Choice(DTYPES), _DTYPE_MEANS, default="float32")
    input: Reading = Reading()


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """The images with known labels."""

    folder: str = setting(
        PathText(), "Folder of a built set. Empty: that of the training.", default=""
    )
    copy_to: str = setting(
        PathText(must_exist=False),
        "Folder on a local disk to which files are copied once. Empty: they are read in place.",
        default="",
    )
    split: str = setting(
        Text(), "Split of the set. Empty: the first that the training evaluates.", default=""
    )


@dataclass(frozen=True, kw_only=True)
class View:
    """The view of an image: its crop and its size."""

    name: ViewName | Literal[""] = setting(
        Choice((*VIEWS, "")),
        "ten_crop averages ten crops, short_side is the original's. Empty: the view of the "
        "training's evaluations, or short_side if it is unknown.",
        default="",
    )
    size: int = setting(
        Whole(0, 2**14, zero="as the checkpoint was trained"), "Size in pixels.", default=0
    )


@dataclass(frozen=True, kw_only=True)
class _OnImages:
    """The settings shared by tasks on images of any origin."""

    task: str = setting(Text(), "classify or export_features.")
    checkpoint: str = setting(_CHECKPOINT, _BEST_CHECKPOINT_MEANS)
    input: str = setting(
        PathText(may_be_empty=False, advice=_WHERE_IMAGES),
        "A folder of images, a list of them, one image, or the folder of a built set.",
    )
    split: str = setting(Text(), "Split of a built set.", default="")
    images_root: str = setting(
        PathText(), "Root of the paths in a list; empty: the list's folder.", default=""
    )
    exif_orientation: bool | None = setting(
        _EXIF,
        "Applies the EXIF orientation; None: as the checkpoint was trained. If it does not say, "
        "files are turned upright, and images of a built set are not.",
        default=None,
    )
    view: View = View()
    dtype: str = setting(Choice(DTYPES), _DTYPE_MEANS, default="float32")
    batch_size: int = setting(BATCH, _BATCH_MEANS, default=256)
    num_threads: int = setting(THREADS, "Threads that read and decode.", default=16)
    max_errors: int = setting(
        Whole(-1),
        "Unreadable images per process before the task ends; -1: no limit.",
        default=-1,
    )


@dataclass(frozen=True, kw_only=True)
class Classify(_OnImages):
    """Writes tags of images to a file."""

    classes: str = setting(
        PathText(), "Class list; empty: the one in the checkpoint's workdir.", default=""
    )
    loss: str = setting(_OPEN_LOSS, _LOSS_MEANS, default="")
    output: str = setting(
        PathText(must_exist=False),
        "A file ending in .jsonl, .csv, .parquet or .txt; empty: in the workdir.",
        default="",
    )
    format: str = setting(
        Choice(("jsonl", "csv", "parquet", "label_pred", "")),
        "label_pred is the original's; empty: according to the extension. In csv, a ' precedes "
        "texts that a spreadsheet would take for formulas.",
        default="",
    )
    overwrite: bool = setting(
        Flag(),
        "Replaces an output of another model, other settings or another program. Otherwise an "
        "output of the same model and settings is extended by new images.",
        default=False,
    )
    watch: bool = setting(
        Flag(), "Keeps running and tags new images, until SIGTERM or Ctrl-C.", default=False
    )
    interval: float = setting(
        Number(0.0, above=True),
        "Seconds between two searches for new images, with watch.",
        default=10.0,
    )
    sidecars: bool = setting(
        Flag(),
        "Writes the tags to XMP sidecars beside the images (photo.jpg.xmp), for photo managers.",
        default=False,
    )
    copy_to: str = setting(
        PathText(must_exist=False),
        "Folder for the images by tag, as hard links where possible, else as copies. Empty: none.",
        default="",
    )
    html: str = setting(
        PathText(must_exist=False),
        "A page that shows the images with their tags, ending in .html; thumbnails in a folder "
        "beside it. Empty: none.",
        default="",
    )
    top_k: int = setting(_TOP_K, "Maximum number of tags per image.", default=-1)
    threshold: float = setting(Number(0.0, 1.0), "Minimum probability of a tag.", default=0.0)
    thresholds: str = setting(
        PathText(stands_for_none="none"),
        "File of thresholds per class, from `mlimages thresholds` or lines of WordNet id or index, "
        "tab, number. Empty: thresholds.tsv of the checkpoint's workdir if there is one and no "
        "threshold is given; none: none.",
        default="",
    )
    consistent: bool = setting(
        Flag(), "First lowers each score to that of its least probable ancestor.", default=False
    )


@dataclass(frozen=True, kw_only=True)
class Export(_OnImages):
    """Writes features of images to files."""

    num_workers: int = setting(WORKERS, WORKERS_MEAN, default=0)
    ema: bool = setting(Flag(), _EMA_MEANS, default=True)
    outputs: tuple[str, ...] = setting(
        Several(Text(may_be_empty=False), '\'("features", "logits")\'', minimum=1),
        "features (pooled, 2,048), logits, and stage0, stage1, ... (outputs of stages, pooled).",
        default=("features",),
    )
    format: str = setting(
        Choice(("parquet", "npy", "npz", "array_record")), "File format.", default="parquet"
    )
    stored_dtype: str = setting(
        Choice(("float32", "float16")), "Type of the stored numbers.", default="float32"
    )
    rows_per_part: int = setting(
        Whole(1),
        "Images per part; a part is computed by one process, and lost if it is killed.",
        default=2_048,
    )
    elastic: bool = setting(
        Flag(),
        "Whether others, each started with this same command, may join in and leave at any time.",
        default=False,
    )
    components: int = setting(
        Whole(0, zero="features as they are"),
        "Number of principal components stored instead of the features.",
        default=0,
    )
    components_images: int = setting(
        Whole(2), "Images, spread over the input, on which they are found first.", default=10_000
    )
    components_of: str = setting(
        PathText(),
        "Folder of an export of the same network whose first components are used, as for training "
        "and test images. Empty: they are found.",
        default="",
    )


@dataclass(frozen=True, kw_only=True)
class FindThresholds:
    """Finds the minimum probability of a tag for every class of a checkpoint."""

    task: str = setting(Text(), "thresholds.", default="thresholds")
    checkpoint: str = setting(_CHECKPOINT, _CHECKPOINT_MEANS)
    data: LabelledImages = LabelledImages()
    thresholds: ThresholdSearch = ThresholdSearch()
    output: str = setting(
        PathText(must_exist=False),
        "The file; empty: thresholds.tsv in the checkpoint's workdir, where tagging finds it.",
        default="",
    )
    label_confidence: float = setting(
        CONFIDENCE, "Minimum confidence of a true label.", default=0.7
    )
    ema: bool = setting(Flag(), _EMA_MEANS, default=True)
    view: View = View()
    exif_orientation: bool | None = setting(
        _EXIF, "Applies the EXIF orientation; None: as the checkpoint was trained.", default=None
    )
    loss: str = setting(_OPEN_LOSS, _LOSS_MEANS, default="")
    dtype: str = setting(Choice(DTYPES), _DTYPE_MEANS, default="float32")
    batch_size: int = setting(BATCH, _BATCH_MEANS, default=256)
    input: Reading = Reading()


Settings: TypeAlias = Train | Evaluate | FindThresholds | Classify | Export

TASKS: Mapping[str, type[Settings]] = {
    "train": Train,
    "quickstart": Train,
    "tagger": Tagger,
    "suspects": Suspects,
    "evaluate": Evaluate,
    "thresholds": FindThresholds,
    "classify": Classify,
    "export_features": Export,
}
TABLES: Mapping[str, Table] = {name: table_of_fields(kind) for name, kind in TASKS.items()}
