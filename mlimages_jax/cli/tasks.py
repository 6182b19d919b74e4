# SPDX-License-Identifier: BSD-3-Clause
"""The commands that run a config: train, evaluate, thresholds, tag and export.

Each returns a function that starts the task, to be called with the --config.NAME=VALUE overrides of
the command line. tyro does not see these, since only the config file defines their names.
"""

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

from tyro.conf import OmitArgPrefixes, Positional

from mlimages_jax import main
from mlimages_jax.engines.options import EngineOptions
from mlimages_jax.main import Processes
from mlimages_jax.settings.config_file import Override

Start = Callable[[Sequence[Override]], None]


def train(
    *,
    config: str,
    workdir: str,
    data: str | None = None,
    minutes: float | None = None,
    processes: OmitArgPrefixes[Processes] = Processes(),
) -> Start:
    """Train a network, or resume its training.

        mlimages train --config=quickstart --workdir=workdirs/quickstart
        mlimages train --config=tagger --data=data/mine/released_320/1.0.0 --workdir=workdirs/mine
        mlimages train --config=configs/pretrain.py:paper --workdir=W --config.batch_size=1024

    The package contains the configs quickstart, tagger (for images of your own), pretrain and
    finetune, some with variants, such as pretrain:paper; give your own config by its file.
    --config.NAME=VALUE changes a value. After an interruption the same command resumes from the
    latest checkpoint. The exit code is 75 after a stop on request, and 1 after an error that a
    restart cannot fix.

    Args:
        config: FILE or FILE:VARIANT, or the name of a config in the package.
        workdir: folder for checkpoints, metrics and logs.
        data: folder of a built data set.
        minutes: with --config=tagger, the time for the training; the number of epochs follows from
            the speed.
        processes: processes of a training on several machines.
    """
    values = {"data.folder": data, "minutes": minutes}
    return functools.partial(_start, config, workdir, processes, values)


def suspects(
    *,
    data: str,
    workdir: str,
    folds: int | None = None,
    minutes: float | None = None,
    config: str = "configs/tagger.py",
    engine: OmitArgPrefixes[EngineOptions] = EngineOptions(),
) -> Start:
    """Find labels that are probably wrong or missing in a data set of your own.

        mlimages suspects --data=data/mine/released_320/1.0.0 --workdir=workdirs/suspects

    It trains as often as there are folds, each time without one of them, and compares the labels of
    that fold with what the network predicts. It writes wrong_labels.tsv and missing_labels.tsv, the
    strongest suspicion first, and sheets of their images. After an interruption the same command
    resumes.

    Args:
        data: folder of a built data set.
        workdir: folder for the tables and the trainings.
        folds: number of parts that the images are divided into; default: 3.
        minutes: time for each training; default: by the number of images, as with --config=tagger.
        config: config file, which has the defaults of all settings.
        engine: where the folds are trained: with --workers 3 three at a time in processes of this
            machine, which share its devices; with --engine ray each on a machine of the cluster,
            with all of its GPUs or TPUs. The workdir must be visible to all.
    """
    values = {"task": "suspects", "data.folder": data, "folds": folds, "minutes": minutes}
    values |= {"engine": engine.engine, "workers": engine.workers}
    return functools.partial(_start, config, workdir, Processes(), values)


def evaluate(
    *,
    checkpoint: str,
    workdir: str = "workdirs/evaluate",
    data: str | None = None,
    split: str | None = None,
    which: str | None = None,
    config: str = "configs/evaluate.py",
    processes: OmitArgPrefixes[Processes] = Processes(),
) -> Start:
    """Evaluate checkpoints on a data set, at several sizes and crops.

        mlimages evaluate --checkpoint=workdirs/mine --data=data/mine/closed_320/1.0.0

    It prints a table and writes it to the workdir, with all details; known results are not computed
    again. --config.NAME=VALUE changes all other settings, such as
    --config.evaluation.sizes=224,299.

    Args:
        checkpoint: a workdir, its checkpoints folder, or one of its steps.
        workdir: folder for the results.
        data: folder of a built data set.
        split: split of the data set; default: val.
        which: latest, best (by checkpoint.best of the training), all, or new: those still to come,
            until the training ends; default: latest.
        config: config file, which has the defaults of all settings.
        processes: processes of an evaluation on several machines.
    """
    values = {
        "checkpoint": checkpoint,
        "data.folder": data,
        "data.split": split,
        "which": which,
    }
    return functools.partial(_start, config, workdir, processes, values)


def thresholds(
    checkpoint: Positional[str],
    /,
    *,
    data: str | None = None,
    split: str | None = None,
    precision: float | None = None,
    recall: float | None = None,
    kappa: float | None = None,
    output: str | None = None,
    workdir: str = "workdirs/thresholds",
    config: str = "configs/thresholds.py",
    processes: OmitArgPrefixes[Processes] = Processes(),
) -> Start:
    """Find the minimum probability of a tag for every class.

        mlimages thresholds workdirs/quickstart --precision=0.9

    It evaluates the checkpoint on images with known labels and writes thresholds.tsv to the
    checkpoint's workdir. `mlimages tag` and `mlimages_jax.load` then use it. The thresholds give
    each class its highest F1, unless a precision or recall is asked for; classes with few images
    are drawn towards the threshold of all classes together. --config.NAME=VALUE changes all other
    settings, such as --config.batch_size=64.

    Args:
        checkpoint: a workdir, its checkpoints folder, or one of its steps.
        data: folder of a built data set; default: that of the training.
        split: split of the data set; default: the first that the training evaluates.
        precision: find the most recall with at least this precision of a class, or the highest
            precision where that is out of reach.
        recall: find the highest precision with at least this recall of a class.
        kappa: number of positives of a class at which its own threshold counts half; 0: each
            class has its own, however few images it has; default: 10.
        output: file for the thresholds; default: thresholds.tsv in the checkpoint's workdir.
        workdir: folder for compiled programs and the list of unreadable images.
        config: config file, which has the defaults of all settings.
        processes: processes of an evaluation on several machines.
    """
    wanted = {"precision": precision, "recall": recall}
    asked = {name: value for name, value in wanted.items() if value is not None}
    if len(asked) > 1:
        sys.exit("error: --precision and --recall: give one of them")
    objective, at_least = next(iter(asked.items()), (None, None))
    values = {
        "checkpoint": checkpoint,
        "data.folder": data,
        "data.split": split,
        "thresholds.objective": objective,
        "thresholds.wanted": at_least,
        "thresholds.kappa": kappa,
        "output": output,
    }
    return functools.partial(_start, config, workdir, processes, values)


def tag(
    images: Positional[str],
    /,
    *,
    checkpoint: str,
    output: str | None = None,
    workdir: str | None = None,
    top_k: int | None = None,
    threshold: float | None = None,
    thresholds: str | None = None,
    split: str | None = None,
    overwrite: bool = False,
    watch: bool = False,
    interval: float | None = None,
    sidecars: bool = False,
    copy_to: str | None = None,
    html: str | None = None,
    config: str = "configs/classify.py",
    processes: OmitArgPrefixes[Processes] = Processes(),
) -> Start:
    """Tag images, to CSV, JSON lines or Parquet.

        mlimages tag photos --checkpoint=workdirs/quickstart --output=tags.csv

    The rows are in the order of the images, and unreadable images become rows with an error. The
    file appears when it is complete; after an interruption the same command resumes. When the
    folder has changed, it tags new and changed images and drops the rows of deleted ones.

        mlimages tag photos --checkpoint=workdirs/mine --threshold=0.5 --watch --sidecars

    keeps running and writes the sidecars that photo managers read beside every new image.
    --config.NAME=VALUE changes all other settings, such as --config.batch_size=64.

    Args:
        images: a folder, a list, one image, or the folder of a built data set.
        checkpoint: a workdir, its checkpoints folder, or one of its steps; of several the best if
            the training recorded it, else the latest.
        output: file ending in .csv, .jsonl, .parquet, or .txt (the original's format); default:
            tags.csv, or tags.jsonl in a workdir.
        workdir: folder of the run; default: workdirs/tag.
        top_k: maximum number of tags per image; 0: no limit; default: 1 for a model of one class
            per image, no limit if every class has a threshold, else 5.
        threshold: minimum probability of a tag, for all classes.
        thresholds: file of minimum probabilities by class, or none; default: thresholds.tsv in the
            checkpoint's workdir, if there is one and --threshold is not given.
        split: split of a built data set.
        overwrite: replace an output of another model, other settings or another program.
        watch: keep running and tag new images until Ctrl-C; the exit code is 75 then.
        interval: seconds between two scans with --watch; default: 10.
        sidecars: write the tags to XMP sidecars beside the images, such as photo.jpg.xmp.
        copy_to: folder for the images by tag, as hard links where possible, else as copies.
        html: file for a page that shows the images with their tags, such as tags.html; thumbnails
            are beside it in tags.html.thumbnails.
        config: config file, which has the defaults of all settings.
        processes: processes of a run on several machines.
    """
    # Without --workdir the default would be hidden in workdirs/tag.
    if output is None and workdir is None:
        output = "tags.csv"
    # None leaves a value to the config file, which may say True where no option is given.
    values = {
        "input": images,
        "checkpoint": checkpoint,
        "output": output,
        "top_k": top_k,
        "threshold": threshold,
        "thresholds": thresholds,
        "split": split,
        "overwrite": overwrite or None,
        "watch": watch or None,
        "interval": interval,
        "sidecars": sidecars or None,
        "copy_to": copy_to,
        "html": html,
    }
    return functools.partial(_start, config, workdir or "workdirs/tag", processes, values)


def export(
    images: Positional[str],
    /,
    *,
    checkpoint: str,
    output: str,
    format: str | None = None,  # noqa: A002  # the name of the option
    split: str | None = None,
    config: str = "configs/export_features.py",
    processes: OmitArgPrefixes[Processes] = Processes(),
) -> Start:
    """Export features or logits of images, to Parquet, NumPy or ArrayRecord files.

        mlimages export photos --checkpoint=workdirs/quickstart --output=features

    `mlimages features` evaluates them and finds duplicates with them. After an interruption the
    same command resumes. --config.NAME=VALUE changes all other settings, such as
    --config.outputs=features,logits.

    Args:
        images: a folder, a list, one image, or the folder of a built data set.
        checkpoint: a workdir, its checkpoints folder, or one of its steps; of several the best if
            the training recorded it, else the latest.
        output: folder for the features.
        format: parquet, npy, npz or array_record; default: parquet.
        split: split of a built data set.
        config: config file, which has the defaults of all settings.
        processes: processes of an export on several machines.
    """
    values = {"input": images, "checkpoint": checkpoint, "format": format, "split": split}
    return functools.partial(_start, config, output, processes, values)


def _start(
    config: str,
    workdir: str,
    processes: Processes,
    values: dict[str, Any],
    overrides: Sequence[Override],
) -> None:
    """Runs a config with the options of a command; --config.NAME overrides take precedence."""
    from absl import app  # not for flags, but for logging and tracebacks on fatal signals

    options = [Override(name, str(value)) for name, value in values.items() if value is not None]
    app.run(
        lambda _: main.start(config, workdir, processes, overrides=[*options, *overrides]),
        argv=["mlimages"],  # nothing that absl could parse once more
    )
