# SPDX-License-Identifier: BSD-3-Clause
import pytest

from mlimages_jax.evaluation import published

NAN = float("nan")
# By hand from the README of github.com/Tencent/tencent-ml-images (commit 011b762).
PUBLISHED = """\
                                                                  224 px         299 px
checkpoint               trained on                                top-1  top-5   top-1  top-5
MSRA ResNet-101          ImageNet                                  76.4   92.9        -      -
Google ResNet-101 ckpt1  ImageNet at 299                               -      -   77.5   93.9
ML-Images ckpt1          ImageNet                                  77.8   93.9    79.0   94.5
Google ResNet-101 ckpt2  JFT-300M, then ImageNet at 299                -      -   79.2   94.7
ML-Images ckpt2          ML-Images, then ImageNet                  78.8   94.5    79.5   94.9
ML-Images ckpt3          ML-Images, then ImageNet 224 to 299       78.3   94.2    80.73  95.5
ML-Images ckpt4          ML-Images, then ImageNet at 299           75.8   92.7    79.6   94.6
"""
SOURCE = """\
Published: README of github.com/Tencent/tencent-ml-images (paper: arXiv:1901.01703).
It does not say how the validation images were cropped.
"""
NOT_COMPARABLE = """\
Not ImageNet's validation set with its own labels: the published results are not
comparable with these and are omitted.
"""


def accuracy(top1: float, top5: float) -> dict[str, float]:
    return {"top1": top1, "top5": top5, "loss": 1.0}


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_the_published_table_is_as_published():
    text = published.table({}, title="nothing of ours", comparable=True)
    title, table, source = text.split("\n\n")
    assert title == "nothing of ours"
    assert lines(table) == lines(PUBLISHED)
    assert source == SOURCE


def test_ours_stand_below_the_published_ones():
    ours = {
        (299, "central"): accuracy(0.80738, 0.955),
        (224, "central"): accuracy(0.78804, 1.0),
        (224, "short_side"): accuracy(0.05, NAN),
    }
    text = published.table(ours, title="a run", comparable=True)
    title, table, source = text.split("\n\n")
    rows = table.splitlines()
    assert lines("\n".join(rows[:9])) == lines(PUBLISHED)
    assert [row.split() for row in rows[9:]] == [
        ["ours,", "central", "78.80", "100.00", "80.74", "95.50"],
        ["ours,", "short_side", "5.00", "-", "-", "-"],
    ]
    assert (title, source) == ("a run", SOURCE)
    points = {tuple(i for i, c in enumerate(row) if c == ".") for row in (rows[4], rows[9])}
    assert len(points) == 1, "decimal points stand below each other"


def test_other_sizes_have_lines_of_their_own():
    ours = {(320, "central"): accuracy(0.5, 0.75), (64, "whole"): accuracy(0.25, 0.5)}
    ours[224, "central"] = accuracy(0.7, 0.9)
    text = published.table(ours, title="a run", comparable=True)
    _, table, others, _ = text.split("\n\n")
    assert lines(table)[-1] == ["ours,", "central", "70.00", "90.00", "-", "-"]
    assert others.splitlines() == [
        "ours    view     top-1  top-5",
        "64 px   whole    25.00  50.00",
        "320 px  central  50.00  75.00",
    ]


def test_what_does_not_compare_stands_alone():
    ours = {(224, "central"): accuracy(0.5, 0.75), (64, "ten_crop"): accuracy(0.25, 0.5)}
    text = published.table(ours, title="a run", comparable=False)
    table = [
        "a run",
        "",
        "ours    view      top-1  top-5",
        "64 px   ten_crop  25.00  50.00",
        "224 px  central   50.00  75.00",
        "",
    ]
    assert text == "\n".join(table) + "\n" + NOT_COMPARABLE
    assert published.table({}, title="a run", comparable=False) == "a run\n\n" + NOT_COMPARABLE


def test_ten_crops_are_said_to_be_ten():
    ours = {(224, "ten_crop"): accuracy(0.5, 0.75)}
    text = published.table(ours, title="a run", comparable=True)
    assert text.endswith("ten_crop averages ten crops per image, the others use a single one.\n")


@pytest.mark.parametrize("missing", ["top1", "top5"])
def test_results_of_another_kind_are_refused(missing):
    ours = {(224, "central"): {name: 0.5 for name in ("top1", "top5", "mAP") if name != missing}}
    with pytest.raises(ValueError, match=f"at 224 px, central, has no '{missing}' but .*'mAP'"):
        published.table(ours, title="a run", comparable=False)


def test_any_results_in_aligned_columns():
    rows = [
        {
            "step": 1_000, "split": "val", "size": 224, "protocol": "central", "examples": 50_000.0,
            "loss": 1.25, "top5": 0.75, "top1": 1 / 3, "checkpoint": "somewhere",
        },
        {
            "step": 20, "split": "validation", "size": 64, "protocol": "short_side",
            "mAP": NAN, "f1@5": 0.5, "loss": 12.0, "top1": None, "precision@5": 0.1,
        },
    ]  # fmt: skip
    assert published.results_table(rows).splitlines() == [
        "step  split       size  view          top1    top5     loss  mAP    f1@5  examples",
        "1000  val          224  central     0.3333  0.7500   1.2500    -       -    50,000",
        "  20  validation    64  short_side       -       -  12.0000    -  0.5000         -",
    ]


def test_all_columns_in_their_order():
    row = dict.fromkeys(sorted(published.METRICS), 0.5)
    header, values = published.results_table([row]).splitlines()
    assert header.split() == [
        "step", "split", "size", "view", "top1", "top5", "loss", "mAP", "f1@5",
        "hierarchical_f1", "calibration_error", "examples",
    ]  # fmt: skip
    assert values.split() == ["-"] * 4 + ["0.5000"] * 7 + ["0"]
    assert published.results_table([]) == "step  split  size  view\n"
