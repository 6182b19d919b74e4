# SPDX-License-Identifier: BSD-3-Clause
"""`from-tensorflow`: converts a checkpoint of the original code."""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax

from mlimages_jax.convert import ConvertError, layout, release_files
from mlimages_jax.convert.tensorflow_checkpoint import TensorFlowCheckpoint
from mlimages_jax.convert.tensorflow_names import (
    GLOBAL_STEP,
    MOMENTUM,
    NEGATIVE_COUNTS,
    POSITIVE_COUNTS,
    our_name,
    tensorflow_name,
)
from mlimages_jax.convert.weights import nested, write_workdir
from mlimages_jax.files.text_files import read_text
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.models.resnet import STAGE_SIZES
from mlimages_jax.step.losses import POSITIVE_WEIGHT, ClassCounts

ML_IMAGES_CLASSES = 11_166
LossName = Literal["auto", "weighted", "softmax"]


class Contents(NamedTuple):
    """Contents of a checkpoint of the original.

    Attributes:
        architecture: Architecture of the network.
        step: The training step; None if there is none.
        has_counts: Whether there are class counts of train.py.
        slots: Number of variables with a velocity.
        ignored: Names of all other variables.
    """

    architecture: layout.Architecture
    step: int | None
    has_counts: bool
    slots: int
    ignored: list[str]


def from_tensorflow(
    *,
    output: str,
    checkpoint: Path | None = None,
    fetch: Literal["mlimages", "imagenet"] | None = None,
    training_state: bool = False,
    count_groups: int = 128,
    loss: LossName = "auto",
    image_size: int = 224,
    dictionary: Path | None = None,
    ignore_extra: bool = False,
    downloads: Path = Path("downloads"),
    fetch_url: str | None = None,
    expect_sha256: str | None = None,
) -> None:
    r"""Convert a checkpoint of the original TensorFlow code.

    Depth and number of classes are read from the file; TensorFlow is not needed:

        mlimages convert from-tensorflow --checkpoint=resnet.ckpt --output=released
        mlimages convert from-tensorflow --fetch=imagenet --output=released

    The second command fetches a checkpoint and its class list from where the release says they
    are, and explains what to do if the host wants a browser.

    To train from its parameters, name the output in a configuration: --config.init_from=released.
    To resume where the original stopped, with its velocities, step and class counts:

        mlimages convert from-tensorflow --checkpoint=model.ckpt-440000 \
            --output=workdirs/resumed --training-state
        mlimages train --config=pretrain:released --workdir=workdirs/resumed

    Args:
        output: the new workdir; it must not contain a checkpoint yet.
        checkpoint: prefix of the checkpoint (the path up to .index), one of its files, or its
            folder.
        fetch: instead, fetch a checkpoint of the release: mlimages (11,166 classes) or imagenet
            (1,000).
        training_state: convert everything that resuming needs, not only the network.
        count_groups: number of groups that get a copy of the class counts, of which the file has
            those of one worker; it is batch_size / group_size of the resumed run.
        loss: the loss it was trained with; auto: inferred from the contents of the file.
        image_size: side of the training images in pixels, which the file does not record.
        dictionary: the class list to store in the workdir: that of ML-Images, of a built data set,
            or the release's imagenet2012_dictionary.txt.
        ignore_extra: skip variables that the original does not have, instead of refusing them.
        downloads: folder for what is fetched; what it has is not fetched again.
        fetch_url: address of the archive to fetch instead, such as a copy of your own.
        expect_sha256: SHA-256 of the archive; without it that of the first download counts.
    """
    if fetch:
        if checkpoint:
            raise ConvertError("give --checkpoint or --fetch, not both")
        checkpoint, classes_file = release_files.fetch(
            fetch, downloads, url=fetch_url, expect_sha256=expect_sha256
        )
        dictionary = dictionary or classes_file
    elif not checkpoint:
        raise ConvertError("give --checkpoint, or --fetch=mlimages or imagenet")
    file = TensorFlowCheckpoint(checkpoint)
    contents = survey(file, ignore_extra=ignore_extra)
    print(f"{file.prefix}: {_depth(contents)}, {contents.architecture.num_classes:,} classes")
    for name in contents.ignored:
        print(f"skipped: {name}")
    name, reason = _loss(loss, contents)
    print(f"loss: {name}, because {reason}")
    classes = _classes(dictionary, contents.architecture.num_classes) if dictionary else ""
    arrays = {
        ours: file.read(tensorflow_name(ours)) for ours in layout.variables(contents.architecture)
    }
    state: dict[str, Any] = {}
    if training_state:
        state = _training_state(file, contents, groups=count_groups, weighted=name == "weighted")
    folder = write_workdir(
        output,
        arrays,
        step=contents.step or 0,
        config=_config(file, loss=name, image_size=image_size),
        class_list=classes,
        **state,
    )
    print(f"{folder}: {_what_next(output, state)}")


def survey(file: TensorFlowCheckpoint, *, ignore_extra: bool) -> Contents:
    """Compares a checkpoint with what train.py and finetune.py save.

    Raises:
        ConvertError: If variables are missing, misshapen or unexpected; lists them.
    """
    known = {our_name(name): entry.shape for name, entry in file.entries.items()}
    try:
        architecture = layout.architecture_of({name: known[name] for name in known if name})
    except ConvertError as error:
        found = ", ".join(list(file.entries)[:5])
        raise ConvertError(f"{file.prefix}: {error}; it contains {found}, ...") from error
    shapes = layout.variables(architecture)
    network = {
        tensorflow_name(name): layout.describe("float32", shape) for name, shape in shapes.items()
    }
    momentum = {
        tensorflow_name(name) + MOMENTUM: layout.describe("float32", shape)
        for name, shape in shapes.items()
        if name.startswith("params/")
    }
    counts = dict.fromkeys(
        (POSITIVE_COUNTS, NEGATIVE_COUNTS), layout.describe("float32", (architecture.num_classes,))
    )
    # With one of the two counts the other is expected too, and reported if it is missing.
    has_counts = not counts.keys().isdisjoint(file.entries)
    optional = {**momentum, GLOBAL_STEP: layout.describe("int64", ())}
    expected = {**network, **(counts if has_counts else {})}
    extra = file.entries.keys() - expected.keys() - optional.keys()
    ignored = sorted(extra) if ignore_extra else []
    described = {name: str(entry) for name, entry in file.entries.items() if name not in ignored}
    if lines := layout.differences(described, expected, optional):
        raise ConvertError(layout.unfit(str(file.prefix), architecture, lines))
    return Contents(
        architecture=architecture,
        step=int(file.read(GLOBAL_STEP)) if GLOBAL_STEP in file.entries else None,
        has_counts=has_counts,
        slots=len(momentum.keys() & file.entries.keys()),
        ignored=ignored,
    )


def velocity_state(velocities: dict[str, np.ndarray], params: list[str]) -> optax.OptState:
    """Returns the state of `optimizers.sgd_momentum`; parameters without velocity are frozen.

    Args:
        velocities: Arrays by the names of `layout`.
        params: Names of all parameters.
    """
    slots = {name: velocities.get(name, optax.MaskedNode()) for name in params}
    trace = optax.TraceState(trace=nested(slots)["params"])
    # `optimizers.sgd_momentum` wraps the trace in `optax.masked` only if parameters are frozen.
    none_frozen = len(velocities) == len(params)
    return (optax.EmptyState(), trace if none_frozen else optax.MaskedState(inner_state=trace))


def _training_state(
    file: TensorFlowCheckpoint, contents: Contents, *, groups: int, weighted: bool
) -> dict[str, Any]:
    missing = GLOBAL_STEP if contents.step is None else "" if contents.slots else "velocities"
    if missing:
        raise ConvertError(
            f"{file.prefix} has no {missing}, which resuming needs: omit --training-state, and "
            "start from the parameters with --config.init_from"
        )
    if weighted and not contents.has_counts:
        raise ConvertError(
            f"{file.prefix} has no class counts, which resuming with the weighted loss needs: omit "
            "--training-state, or give --loss=softmax"
        )
    params = [n for n in layout.variables(contents.architecture) if n.startswith("params/")]
    velocities = {
        name: file.read(tensorflow_name(name) + MOMENTUM)
        for name in params
        if tensorflow_name(name) + MOMENTUM in file.entries
    }
    frozen = len(params) - len(velocities)
    print(f"step {contents.step:,}; velocities of {len(velocities)} variables, {frozen} frozen")
    counts = None
    if weighted:
        # Each worker of the original counted its own images, and only one saved its counts.
        positive, negative = (
            jnp.tile(file.read(name), (groups, 1)) for name in (POSITIVE_COUNTS, NEGATIVE_COUNTS)
        )  # [G, C]
        counts = ClassCounts(positive=positive, negative=negative)
        print(f"class counts of the worker that saved, copied to all {groups} groups")
    return {"opt_state": velocity_state(velocities, params), "class_counts": counts}


def _loss(choice: LossName, contents: Contents) -> tuple[str, str]:
    """Returns the name of the loss, and the reason for it."""
    if choice != "auto":
        return choice, "--loss says so"
    if contents.has_counts:
        return "weighted", "the file has the class counts of train.py (--loss=softmax otherwise)"
    if contents.architecture.num_classes == ML_IMAGES_CLASSES:
        return "weighted", "it has as many classes as ML-Images (--loss=softmax otherwise)"
    return "softmax", "its classes are not those of ML-Images (--loss=weighted otherwise)"


def _classes(dictionary: Path, num_classes: int) -> str:
    """Reads the text of a class list and checks its number of classes."""
    hierarchy = Hierarchy.from_file(dictionary)
    if len(hierarchy) != num_classes:
        raise ConvertError(
            f"{dictionary} names {len(hierarchy):,} classes but the checkpoint has "
            f"{num_classes:,}: give the dictionary that it was trained with"
        )
    return read_text(dictionary)


def _depth(contents: Contents) -> str:
    sizes = contents.architecture.stage_sizes
    depth = next((depth for depth, known in STAGE_SIZES.items() if known == sizes), None)
    return f"ResNet-{depth}" if depth else f"{sizes} blocks in its stages"


def _config(file: TensorFlowCheckpoint, *, loss: str, image_size: int) -> dict[str, Any]:
    values: dict[str, Any] = {"name": loss}
    if loss == "weighted":
        values["weighted"] = {"positive_weight": POSITIVE_WEIGHT}
    return {
        "loss": values,
        "image_size": image_size,
        "imported": {"format": "tensorflow", "file": str(file.prefix)},
    }


def _what_next(output: str, state: dict[str, Any]) -> str:
    if state:
        return f"resume with --workdir={output}, or start from it with --config.init_from={output}"
    return f"start from it with --config.init_from={output}"
