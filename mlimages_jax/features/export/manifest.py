# SPDX-License-Identifier: BSD-3-Clause
"""The manifest of an export, features.json: what the numbers are, and when a run may resume it."""

import dataclasses
import json
import os
from typing import Any

from absl import logging

from mlimages_jax.features.export import FeatureFilesError, reading
from mlimages_jax.features.export.feature_formats import DTYPES, FORMATS, Layout
from mlimages_jax.files.object_folder import ObjectFolder

MANIFEST = "features.json"
_FORMER = "pictures"  # key of `images` in version 0.1
COMPONENTS = "components_digest"  # key of the digest of the components; absent without any
_FREE = ("complete", "errors", "speed", "input", COMPONENTS)  # keys that may differ when resuming
# Values that everything else relies on, and those that it may find, with their types.
_NEEDED = {
    "complete": bool, "format": str, "outputs": dict, "images": int, "rows_per_part": int,
    "dtype": str, "labels": bool,
}  # fmt: skip
_OPTIONAL = {"checkpoint": dict, "input": dict, COMPONENTS: str}
_JSON_NAMES = {bool: "boolean", str: "string", dict: "object", int: "integer"}
_LISTED = 10  # differences shown in an error


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads features.json, also of an incomplete export.

    Raises:
        FileNotFoundError: If there is none.
        FeatureFilesError: If it is damaged.
    """
    place = ObjectFolder(folder)
    with reading(place.path(MANIFEST)):
        try:
            text = place.read(MANIFEST)
        except (FileNotFoundError, NotADirectoryError):
            text = None
        if text is not None:
            values = json.loads(text)
            _check_values(values)
            return values
    raise FileNotFoundError(
        f"{place} contains no exported features ({MANIFEST} is missing): create them with mlimages "
        "export IMAGES --checkpoint=W --output=FOLDER"
    )


def write_manifest(folder: ObjectFolder, values: dict[str, Any]) -> None:
    """Writes features.json atomically."""
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    folder.write(MANIFEST, text.encode())


def layout_values(layout: Layout) -> dict[str, Any]:
    """Returns a layout as JSON values, in which its `widths` are called outputs."""
    values = dataclasses.asdict(layout)
    return {"outputs": values.pop("widths"), **values}


def layout_of(manifest: dict[str, Any]) -> Layout:
    """Returns the layout in a manifest, also of version 0.1."""
    manifest = _by_present_names(manifest)
    names = [field.name for field in dataclasses.fields(Layout) if field.name != "widths"]
    return Layout(widths=manifest["outputs"], **{name: manifest[name] for name in names})


def check_same(saved: dict[str, Any], wanted: dict[str, Any], *, where: ObjectFolder) -> None:
    """Checks that an export may be resumed with these values.

    Args:
        saved: Manifest in the folder.
        wanted: Manifest of this run.
        where: The folder, for messages.

    Raises:
        FeatureFilesError: They describe other features; the message lists the differences.
    """
    # Through JSON, as the saved values came: it turns tuples into lists.
    wanted = json.loads(json.dumps(wanted))
    if _FORMER in saved:
        logging.warning(
            "%s was started by version 0.1, which stored no digests of weights and images: cannot "
            "check that they are the same", where,
        )  # fmt: skip
        saved = _by_present_names(saved)
        wanted = _what_both_say(wanted, saved) | {"input_digest": saved.get("input_digest")}
    lines = [
        f"  {key}: {saved.get(key)!r} in the folder, {wanted.get(key)!r} now"
        for key in sorted(saved.keys() | wanted.keys())
        if key not in _FREE and saved.get(key) != wanted.get(key)
    ]
    if lines:
        raise FeatureFilesError(
            f"{where} contains other features; give another --workdir, or the old values:\n"
            + "\n".join(lines[:_LISTED])
        )


def _check_values(values: Any) -> None:
    """Checks what everything else relies on.

    Raises:
        ValueError: If a value is missing or cannot be.
    """
    if type(values) is not dict:
        raise ValueError("it is not a JSON object")
    present = _by_present_names(values)
    for key, kind in _NEEDED.items():
        if type(present.get(key)) is not kind:  # not isinstance: a bool is an int too
            raise ValueError(f"{key} is {present.get(key)!r}, not a JSON {_JSON_NAMES[kind]}")
    for key in present.keys() & _OPTIONAL.keys():
        if type(present[key]) is not _OPTIONAL[key]:
            raise ValueError(f"{key} is {present[key]!r}, not a JSON {_JSON_NAMES[_OPTIONAL[key]]}")
    numbers = [present["rows_per_part"], *present["outputs"].values()]
    if present["images"] < 0 or any(type(one) is not int or one < 1 for one in numbers):
        raise ValueError("images, rows_per_part and widths of outputs are not all counts")
    if present["format"] not in FORMATS or present["dtype"] not in DTYPES:
        raise ValueError(f"format {present['format']!r} of {present['dtype']!r} does not exist")


def _by_present_names(manifest: dict[str, Any]) -> dict[str, Any]:
    """Renames the key of version 0.1."""
    return {"images" if key == _FORMER else key: value for key, value in manifest.items()}


def _what_both_say(wanted: dict[str, Any], saved: dict[str, Any]) -> dict[str, Any]:
    """Keeps the values of `wanted` whose keys `saved` has too, at every level."""
    return {
        key: _what_both_say(value, saved[key])
        if isinstance(value, dict) and isinstance(saved[key], dict)
        else value
        for key, value in wanted.items()
        if key in saved
    }
