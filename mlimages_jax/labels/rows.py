# SPDX-License-Identifier: BSD-3-Clause
"""Splits, selects and joins the rows of label lists, as arrays."""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from mlimages_jax.labels.lists import LabelList


def iter_blocks(label_list: LabelList, num_rows: int) -> Iterator[LabelList]:
    """Yields the rows in order, `num_rows` at a time; the arrays are views where possible."""
    for start in range(0, len(label_list), num_rows):
        name_offsets = label_list.name_offsets[start : start + num_rows + 1]
        offsets = label_list.offsets[start : start + num_rows + 1]
        yield LabelList(
            names=label_list.names[name_offsets[0] : name_offsets[-1]],
            name_offsets=name_offsets - name_offsets[0],
            offsets=offsets - offsets[0],
            classes=label_list.classes[offsets[0] : offsets[-1]],
            confidences=label_list.confidences[offsets[0] : offsets[-1]],
        )


def take_rows(label_list: LabelList, rows: np.ndarray) -> LabelList:
    """Returns some rows as a list.

    Args:
        label_list: The list to take them from.
        rows: int [n], in the desired order; repetitions are allowed.
    """
    names, name_offsets = _take_spans(label_list.name_offsets, rows)
    labels, offsets = _take_spans(label_list.offsets, rows)
    return LabelList(
        names=label_list.names[names],
        name_offsets=name_offsets,
        offsets=offsets,
        classes=label_list.classes[labels],
        confidences=label_list.confidences[labels],
    )


def join_lists(parts: list[LabelList]) -> LabelList:
    """Joins lists in order, and empties `parts` to save memory.

    The peak memory is that of the parts plus the largest column.
    """
    parts.append(LabelList.from_rows([], num_classes=1))  # sets the dtypes if `parts` is empty
    fields = [field.name for field in dataclasses.fields(LabelList)]
    columns = {name: [getattr(part, name) for part in parts] for name in fields}
    parts.clear()
    for name in ("name_offsets", "offsets"):
        columns[name] = [np.zeros(1, np.int64), *map(np.diff, columns[name])]
    # `pop` frees the parts of a column as soon as it is joined.
    joined = {name: np.concatenate(columns.pop(name)) for name in fields}
    for name in ("name_offsets", "offsets"):
        np.cumsum(joined[name], out=joined[name])
    return LabelList(**joined)


def label_rows(label_list: LabelList) -> np.ndarray:
    """Returns int64 [nnz]: the row of every label."""
    return np.repeat(np.arange(len(label_list)), np.diff(label_list.offsets))


def row_names(label_list: LabelList) -> list[bytes]:
    """Returns the names of all rows, UTF-8."""
    text = label_list.names.tobytes()
    stops = label_list.name_offsets.tolist()
    return [text[start:stop] for start, stop in itertools.pairwise(stops)]


def rename_rows(label_list: LabelList, names: list[bytes]) -> LabelList:
    """Returns the list with other names: UTF-8, one per row, valid for `check_row`."""
    lengths = np.fromiter(map(len, names), np.int64, len(names))
    return dataclasses.replace(
        label_list,
        names=np.frombuffer(b"".join(names), np.uint8),
        name_offsets=np.concatenate([[0], np.cumsum(lengths)]),
    )


def _take_spans(offsets: np.ndarray, spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the positions within some spans, concatenated, and the offsets of the spans."""
    starts, lengths = offsets[spans], offsets[spans + 1] - offsets[spans]
    new_offsets = np.concatenate([[0], np.cumsum(lengths)])
    positions = np.repeat(starts - new_offsets[:-1], lengths) + np.arange(new_offsets[-1])
    return positions, new_offsets
