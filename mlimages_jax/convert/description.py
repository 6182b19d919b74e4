# SPDX-License-Identifier: BSD-3-Clause
"""Describes a network for use without this package: its input, classes and probabilities."""

from typing import Any

from mlimages_jax.checkpoints import own_thresholds, saved_model
from mlimages_jax.checkpoints.saved_model import SavedModel
from mlimages_jax.convert.weights import probability_rule
from mlimages_jax.data.images.views import ViewName
from mlimages_jax.labels.hierarchy import Hierarchy

_CROPS: dict[ViewName, str] = {
    "central": "the central 80% of each side, resized to {size} x {size}, bilinear, not rounded",
    "short_side": "the short side resized to {short}, bilinear; the central {size} x {size}",
    "ten_crop": (
        "the short side resized to {short}, bilinear; the four corners and the centre, each {size} "
        "x {size}, and their mirror images; outputs are averaged"
    ),
    "whole": "the full image resized to {size} x {size}, area interpolation",
}


def description(
    saved: SavedModel, *, image_size: int | None = None, view: ViewName | None = None
) -> dict[str, Any]:
    """Describes a checkpoint by its own settings and classes, as JSON values.

    Args:
        saved: The checkpoint.
        image_size: Side of the images in pixels; None uses that of the training.
        view: How images are resized and cropped; None uses the view of the training's evaluation.

    Returns:
        `step`, `image_size` (None if unknown), `preprocessing`, `calibration`, `probability` (a
        sentence), `classes` in the order of the logits (None if they have no names), and
        `thresholds`, the minimum probability of a tag of each of them (None if none were found).
    """
    usage = saved.usage()
    size = image_size or usage.image_size or None  # settings say 0 where it is unknown
    view = view or usage.view
    crop = _CROPS[view]
    upright = saved_model.turns_upright(saved.config)
    return {
        "step": saved.step,
        "image_size": size,
        "preprocessing": {
            "channels": "RGB",
            "crop": view,
            "crop_in_words": crop.format(size=size, short=round(size * 256 / 224)) if size else "",
            "orientation": "exif" if upright else "stored",  # EXIF orientation applied, or not
            "range": [-1, 1],
            "mean": [127.5] * 3,  # for levels from 0 to 255: (level - mean) / scale
            "scale": [127.5] * 3,
        },
        "calibration": {"loss": usage.loss, "positive_weight": usage.positive_weight},
        "probability": probability_rule(saved.config),
        "classes": _classes(saved.hierarchy),
        "thresholds": _thresholds(saved),
    }


def in_words(facts: dict[str, Any]) -> str:
    """Formats a description as text for a README."""
    steps = facts["preprocessing"]
    turned = "EXIF orientation applied" if steps["orientation"] == "exif" else "as stored"
    classes = facts["classes"]
    names = f"{len(classes):,}, in config.json, in logit order" if classes else "without names"
    tags = "\n\nA tag has at least the probability in `thresholds` of config.json."
    return (
        f"Images: {steps['channels']}, {turned}; {steps['crop_in_words']}; 2 * level / 255 - 1.\n\n"
        f"Probability of a class: {facts['probability']}.\n\nClasses: {names}."
        f"{tags if facts['thresholds'] else ''}\n"
    )


def _thresholds(saved: SavedModel) -> list[float] | None:
    found = own_thresholds.thresholds_of(saved)
    return found.of(saved.hierarchy).tolist() if found and saved.hierarchy else None


def _classes(hierarchy: Hierarchy | None) -> list[dict[str, Any]] | None:
    """Returns id, name and parent (None for a root) of every class."""
    if hierarchy is None:
        return None
    parents = [parent if parent >= 0 else None for parent in hierarchy.parents.tolist()]
    rows = zip(hierarchy.ids, hierarchy.names, parents, strict=True)
    return [{"id": id_, "name": name, "parent": parent} for id_, name, parent in rows]
