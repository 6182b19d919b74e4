# SPDX-License-Identifier: BSD-3-Clause
import json

import matplotlib
import numpy as np
import pytest
from etils import epath
from etils.epath.testing import mock_epath
from PIL import Image

from mlimages_jax.evaluation import report
from mlimages_jax.evaluation.class_details import COLUMNS
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.metrics import single_label
from mlimages_jax.metrics.calibration import Calibration
from mlimages_jax.metrics.multi_label import MultiLabelMetrics
from mlimages_jax.metrics.single_label import SingleLabelMetrics

TREE = Hierarchy(
    ids=("n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7"),
    names=(
        "animal",
        "dog, domestic dog",
        "poodle",
        "vehicle",
        "car",
        "cat",
        "truck",
        "stone, rock",
    ),
    parents=np.array([-1, 0, 1, -1, 3, 0, 3, -1]),
)
IMAGES = (  # true class, classes from the best on; the others follow by index
    (3, [3]),
    (2, [2]), (2, [1, 2]),
    (4, [4]), (4, [6, 4]),
    (7, [7]), (7, [6, 7]),
    (6, [6]), (6, [0, 1, 2, 3, 4, 5]),
    (1, [2, 1]), (1, [2, 1]), (1, [4, 1]), (1, [1]),
    (5, [2, 0, 1, 3, 4]), (5, [1, 0, 2, 3, 4]),
)  # fmt: skip
PER_CLASS = """\
class\tid\timages\ttop1\ttop5\ttaken_for\tname
3\tn3\t1\t1.0000\t1.0000\t\tvehicle
2\tn2\t2\t0.5000\t1.0000\tdog, domestic dog\tpoodle
4\tn4\t2\t0.5000\t1.0000\ttruck\tcar
7\tn7\t2\t0.5000\t1.0000\ttruck\tstone, rock
6\tn6\t2\t0.5000\t0.5000\tanimal\ttruck
1\tn1\t4\t0.2500\t1.0000\tpoodle\tdog, domestic dog
5\tn5\t2\t0.0000\t0.0000\tdog, domestic dog\tcat
0\tn0\t0\t\t\t\tanimal
"""
CONFUSION = """\
true_id\ttrue_name\tpredicted_id\tpredicted_name\timages\tshare\tcommon_ancestor
n1\tdog, domestic dog\tn2\tpoodle\t2\t0.5000\tdog, domestic dog
n1\tdog, domestic dog\tn4\tcar\t1\t0.2500\t
n2\tpoodle\tn1\tdog, domestic dog\t1\t0.5000\tdog, domestic dog
n4\tcar\tn6\ttruck\t1\t0.5000\tvehicle
n5\tcat\tn1\tdog, domestic dog\t1\t0.5000\tanimal
n5\tcat\tn2\tpoodle\t1\t0.5000\tanimal
n6\ttruck\tn0\tanimal\t1\t0.5000\t
n7\tstone, rock\tn6\ttruck\t1\t0.5000\t
"""


def single_label_metrics(images=IMAGES, classes: int = len(TREE)) -> SingleLabelMetrics:
    metrics = SingleLabelMetrics(classes)
    for true, first in images:
        order = [*first, *(i for i in range(classes) if i not in first)]
        metrics.update(-np.argsort(order)[None].astype(np.float32), np.eye(classes)[[true]])
    return metrics


def multi_label_metrics(**arguments) -> MultiLabelMetrics:
    """The positives of class 0 come first, of class 1 in place 2; class 3 has none."""
    metrics = MultiLabelMetrics(8, **arguments)
    scores, targets = np.zeros((2, 8)), np.zeros((2, 8))
    scores[:, :2], targets[:, :2] = [[3, 1], [2, 2]], [[1, 1], [1, 0]]
    metrics.update(scores, targets)
    return metrics


def flat(count: int) -> Hierarchy:
    names = [f"class {i}" for i in range(count)]
    return Hierarchy(tuple(f"n{i}" for i in range(count)), tuple(names), np.full(count, -1))


def write(folder, metrics, hierarchy=TREE, **arguments) -> set[str]:
    report.write_files(folder, metrics, hierarchy, title="a run", **arguments)
    return {path.name for path in folder.iterdir()}


def test_what_an_evaluation_of_one_label_leaves(tmp_path):
    metrics = single_label_metrics()
    names = write(tmp_path / "new" / "folder", metrics)
    folder = tmp_path / "new" / "folder"
    assert names == {
        "per_class.tsv", "confusion.tsv", "reliability.png", "calibration.tsv", "metrics.json",
    }  # fmt: skip
    assert (folder / "per_class.tsv").read_text() == PER_CLASS
    assert (folder / "confusion.tsv").read_text() == CONFUSION
    values = json.loads((folder / "metrics.json").read_text())
    assert values == metrics.compute()
    assert values["top1"] == 6 / 15
    assert values["examples"] == 15


def test_what_an_evaluation_of_many_labels_leaves(tmp_path):
    names = write(tmp_path / "a", multi_label_metrics())
    assert names == {"per_class.tsv", "metrics.json", "confusion.tsv"}
    header, *rows = (
        line.split("\t") for line in (tmp_path / "a" / "per_class.tsv").read_text().splitlines()
    )
    assert header == list(COLUMNS)
    assert [row[:4] for row in rows[:3]] == [
        ["0", "n0", "0", "1.0000"], ["1", "n1", "1", "0.5000"], ["2", "n2", "2", ""],
    ]  # fmt: skip
    assert [row[-1] for row in rows] == list(TREE.names)
    names = write(tmp_path / "b", multi_label_metrics(positive_weight=12.0))
    assert names == {
        "per_class.tsv", "confusion.tsv", "metrics.json", "reliability.png", "calibration.tsv",
    }  # fmt: skip
    values = json.loads((tmp_path / "b" / "metrics.json").read_text())
    assert values["mAP"] == 0.75
    assert values["mAP_depth_0"] == 1 and values["mAP_depth_1"] == 0.5
    assert 0 < values["calibration_error"] < 1


def test_what_is_no_number_is_null_in_json(tmp_path):
    write(tmp_path, SingleLabelMetrics(8))
    text = (tmp_path / "metrics.json").read_text()
    empty = {"top1": None, "top5": None, "examples": 0, "calibration_error": None}
    assert json.loads(text, parse_constant=pytest.fail) == empty
    values = {"loss": 1.25, "top1": float("nan"), "top5": float("inf")}
    write(tmp_path, SingleLabelMetrics(8), values=values)
    text = (tmp_path / "metrics.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "loss": 1.25,
        "top1": None,
        "top5": None,
    }
    assert (tmp_path / "per_class.tsv").read_text().splitlines()[1] == "0\tn0\t0\t\t\t\tanimal"


def test_no_name_breaks_a_table(tmp_path):
    """The hierarchy refuses tabs and line ends; some readers know further ones."""
    ends = ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]
    names = tuple(f"a{end}{i},\xa0é" for i, end in enumerate(ends))
    hierarchy = Hierarchy(TREE.ids, names, TREE.parents)
    object.__setattr__(hierarchy, "names", ("a\tb\nc\rd", *names[1:]))
    write(tmp_path, single_label_metrics(), hierarchy)
    table = (tmp_path / "per_class.tsv").read_bytes().decode().splitlines()
    assert len(table) == 9
    assert {line.count("\t") for line in table} == {6}
    assert table[1].endswith("\ta 3,\xa0é")
    assert table[-1].endswith("\ta b c d")
    pairs = (tmp_path / "confusion.tsv").read_bytes().decode().splitlines()
    assert len(pairs) == 9
    assert {line.count("\t") for line in pairs} == {6}


def test_the_hundred_worst_pairs_of_a_flat_hierarchy(tmp_path):
    images = [(i, [j]) for i in range(11) for j in range(11) if i != j]
    assert len(images) == 110
    write(tmp_path, single_label_metrics([*images, (10, [9])], 11), flat(11))
    lines = (tmp_path / "confusion.tsv").read_text().splitlines()
    assert lines[0] == "true_id\ttrue_name\tpredicted_id\tpredicted_name\timages\tshare"
    assert lines[1] == "n10\tclass 10\tn9\tclass 9\t2\t0.1818"
    assert lines[2] == "n0\tclass 0\tn1\tclass 1\t1\t0.1000"
    assert len(lines) == 101


def test_where_pairs_are_not_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(single_label, "CONFUSION_CLASSES", 7)
    names = write(tmp_path, single_label_metrics())
    assert names == {"per_class.tsv", "metrics.json", "reliability.png", "calibration.tsv"}
    lines = (tmp_path / "per_class.tsv").read_text().splitlines()
    assert lines[0] == "class\tid\timages\ttop1\ttop5\tname"
    assert lines[6] == "1\tn1\t4\t0.2500\t1.0000\tdog, domestic dog"
    assert lines[-1] == "0\tn0\t0\t\t\tanimal"


def test_a_bucket_is_written_to_as_a_folder_is(tmp_path):
    def local(path) -> str:
        return str(path).replace("gs://bucket", str(tmp_path))

    with mock_epath(
        open=lambda original, path, mode: original(local(path), mode),
        makedirs=lambda original, path, exist_ok: original(local(path), exist_ok=exist_ok),
    ):
        folder = epath.Path("gs://bucket/report")
        report.write_files(folder, single_label_metrics(), TREE, title="a run")
    assert (tmp_path / "report" / "per_class.tsv").read_text() == PER_CLASS
    assert (tmp_path / "report" / "confusion.tsv").read_text() == CONFUSION
    assert json.loads((tmp_path / "report" / "metrics.json").read_text())["examples"] == 15
    assert Image.open(tmp_path / "report" / "reliability.png").format == "PNG"


@pytest.mark.parametrize("metrics", [SingleLabelMetrics(3), MultiLabelMetrics(3)])
def test_another_number_of_classes_is_refused(tmp_path, metrics):
    with pytest.raises(ValueError, match="metrics of 3 classes but a hierarchy of 8: give the"):
        write(tmp_path, metrics)
    with pytest.raises(ValueError, match="metrics of 3 classes but a hierarchy of 8"):
        report.write_confusions(tmp_path / "c.tsv", SingleLabelMetrics(3), TREE)


def counted() -> Calibration:
    """Five bins: the second overconfident by 0.25, the last underconfident by 0.15, 8 cases."""
    calibration = Calibration(5)
    probabilities = np.array([0.25] * 4 + [0.85] * 4, np.float32)
    calibration.update(probabilities, np.array([0] * 4 + [1] * 4, bool))
    return calibration


def boxes(patches) -> np.ndarray:
    return np.array([(p.get_x(), p.get_width(), p.get_y(), p.get_height()) for p in patches])


def test_what_the_reliability_diagram_shows():
    figure = report.reliability_diagram(counted(), title="a run", single_label=True)
    upper, lower = figure.axes
    right, gaps = (boxes(bars) for bars in upper.containers)
    np.testing.assert_allclose(right, [[0.2, 0.2, 0, 0], [0.8, 0.2, 0, 1]], atol=1e-6)
    np.testing.assert_allclose(gaps, [[0.2, 0.2, 0, 0.25], [0.8, 0.2, 1, -0.15]], atol=1e-6)
    (diagonal,) = upper.lines
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata()) == [0, 1]
    assert upper.get_xlim() == upper.get_ylim() == lower.get_xlim() == (0, 1)
    (counts,) = lower.containers
    np.testing.assert_allclose(boxes(counts), [[0.2, 0.2, 0, 4], [0.8, 0.2, 0, 4]])
    assert lower.get_yscale() == "log"
    assert lower.get_ylim()[0] < 1 < 4 < lower.get_ylim()[1]
    assert figure.get_suptitle() == "a run\ncalibration error 0.2000, 8 images"
    texts = [upper.get_ylabel(), lower.get_ylabel(), lower.get_xlabel()]
    assert texts == ["Accuracy", "Images", "Probability of the predicted class"]
    assert [text.get_text() for text in figure.legends[0].texts] == [
        "perfectly calibrated (below: overconfident)", "correct", "gap to the mean probability",
    ]  # fmt: skip


def test_the_gaps_are_to_the_mean_probability_not_to_the_middle_of_the_bin():
    calibration = Calibration(2)
    calibration.update(np.array([0.625, 0.6875], np.float32), np.array([False, True]))
    figure = report.reliability_diagram(calibration, title="", single_label=True)
    np.testing.assert_allclose(boxes(figure.axes[0].containers[1]), [[0.5, 0.5, 0.5, 0.15625]])


def test_the_reliability_of_many_labels_says_so():
    figure = report.reliability_diagram(counted(), title="a run", single_label=False)
    assert figure.get_suptitle().endswith("\ncalibration error 0.2000, 8 judged labels")
    _, lower = figure.axes
    assert [lower.get_ylabel(), lower.get_xlabel()] == ["Judged labels", "Probability of a label"]


def test_the_diagram_is_of_the_kind_of_the_metrics(tmp_path, monkeypatch):
    drawn, original = [], report.reliability_diagram

    def spy(calibration, **arguments):
        drawn.append((calibration, arguments))
        return original(calibration, **arguments)

    monkeypatch.setattr(report, "reliability_diagram", spy)
    single, multi = single_label_metrics(), multi_label_metrics(positive_weight=1.0)
    write(tmp_path, single)
    write(tmp_path, multi)
    assert drawn == [
        (single.calibration, {"title": "a run", "single_label": True}),
        (multi.calibration, {"title": "a run", "single_label": False}),
    ]


@pytest.mark.filterwarnings("error")
def test_the_image_is_a_readable_png_of_one_size(tmp_path):
    """Dollars in the title are letters, and a long title takes lines instead of the margin."""
    title = "workdirs/$\\nothing$_" + "long/" * 20 + "end, step 1,000,000"
    sizes = set()
    for name, metrics in (("a", single_label_metrics()), ("b", SingleLabelMetrics(8))):
        with matplotlib.rc_context({"font.size": 11}):
            report.write_files(tmp_path / name, metrics, TREE, title=title)
            assert matplotlib.rcParams["font.size"] == 11
        with Image.open(tmp_path / name / "reliability.png") as image:
            assert image.format == "PNG"
            sizes.add(image.size)
            pixels = np.asarray(image.convert("RGB"))
        for margin in (pixels[:4], pixels[-4:], pixels[:, :4], pixels[:, -4:]):
            assert (margin == 255).all(), "something is cut off"
        orange = (pixels == (0xD5, 0x5E, 0x00)).all(axis=-1)
        assert orange.any() == (name == "a")
    assert sizes == {(920, 1040)}
    figure = report.reliability_diagram(Calibration(), title=title, single_label=True)
    *lines, last = figure.get_suptitle().split("\n")
    assert "".join(lines).replace(" ", "") == title.replace(" ", "")
    assert max(map(len, lines)) <= 58
    assert last == "no predictions"
    assert not figure.legends
    figure.draw_without_rendering()
    (head,) = figure.texts
    assert head.get_window_extent().y0 > figure.axes[0].get_window_extent().y1
