# SPDX-License-Identifier: BSD-3-Clause
import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlimages_jax.features.__main__ import main
from tests.features.feature_sets import random_features, write_export


def run(tmp_path, *arguments):
    output = tmp_path / "probe.json"
    main(["probe", *map(str, arguments), "--output", str(output)])
    values = json.loads(output.read_text())
    (row,) = values.pop("results")
    return row, values


def clusters(tmp_path, *, count=90, labels=None):
    """Four classes that are not quite apart, as two folders."""
    rng = np.random.default_rng(0)
    means = random_features(4, 10, seed=3)
    sets = []
    for name in ("train", "test"):
        classes = rng.integers(0, 4, count)
        rows = means[classes] + rng.normal(0, 0.7, (count, 10)).astype(np.float32)
        texts = [labels(c) if labels else f"{c}:1" for c in classes.tolist()]
        errors = {0: "missing: x"}
        folder = write_export(tmp_path / name, rows, labels=texts, errors=errors)
        sets.append((folder, rows[1:], classes[1:]))
    return sets


def test_one_class_each_equals_scikit_learn(tmp_path, capsys):
    (train, rows, classes), (test, others, truth) = clusters(tmp_path)
    row, values = run(tmp_path, "--train", train, "--test", test, "--c", 0.01, 0.1, 1)
    tried = values["tried"]
    assert [entry["C"] for entry in tried] == [0.01, 0.1, 1]
    assert all(entry["examples"] == tried[0]["examples"] for entry in tried)
    assert 5 < tried[0]["examples"] < 40  # a fifth of 89
    best = max(entry["top1"] for entry in tried)
    assert row["C"] == next(entry["C"] for entry in tried if entry["top1"] == best)
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=row["C"], max_iter=1000))
    assert row["top1"] == pytest.approx(theirs.fit(rows, classes).score(others, truth), abs=0.012)
    assert 0.6 < row["top1"] < 1
    assert row["top5"] == 1
    assert (row["unfinished"], values["task"], row["examples"]) == (0, "single", 89)
    assert f"{row['top1']:.4f}" in capsys.readouterr().out


def test_many_labels_equal_scikit_learn(tmp_path):
    (train, rows, classes), (test, others, truth) = clusters(
        tmp_path, labels=lambda c: f"{c}:1 {(c + 1) % 4}:1"
    )
    row, values = run(tmp_path, "--train", train, "--test", test, "--c", 0.1)
    numbers = np.arange(4)
    dense = [(c[:, None] == numbers) | ((c[:, None] + 1) % 4 == numbers) for c in (classes, truth)]
    theirs = make_pipeline(
        StandardScaler(), OneVsRestClassifier(LogisticRegression(C=0.1, max_iter=1000))
    ).fit(rows, dense[0].astype(int))
    expected = average_precision_score(dense[1], theirs.decision_function(others))
    assert row["mAP"] == pytest.approx(expected, abs=0.005)
    assert values["task"] == "multi"
    assert 0.7 < row["mAP"] < 1


def test_the_choice_sees_no_test_image(tmp_path):
    """Other test labels leave what was tried as it was."""
    (train, _, _), (test, rows, truth) = clusters(tmp_path)
    _, values = run(tmp_path, "--train", train, "--test", test, "--c", 0.01, 1)
    labels = ["0:1"] + [f"{(c + 1) % 4}:1" for c in truth.tolist()]
    other = write_export(tmp_path / "o", np.concatenate([rows[:1], rows]), labels=labels)
    row, others = run(tmp_path, "--train", train, "--test", other, "--c", 0.01, 1)
    assert values["tried"] == others["tried"]
    assert row["top1"] < 0.3


def test_the_smallest_of_the_best_is_taken_and_an_edge_is_told(tmp_path, capsys):
    """Classes that are far apart are told by any C."""
    features = np.repeat(np.eye(3), 20, axis=0) * 100 + random_features(60, 3)
    labels = [f"{i // 20}:1" for i in range(60)]
    folder = write_export(tmp_path / "f", features, labels=labels)
    row, _ = run(tmp_path, "--train", folder, "--c", 10, 0.1, 1)
    assert (row["C"], row["top1"]) == (0.1, 1)
    assert "the best C, 0.1, is at an end of the list" in capsys.readouterr().out
    run(tmp_path, "--train", folder, "--c", 1)
    assert "at an end" not in capsys.readouterr().out


def test_fewer_training_images_are_drawn_from_all(tmp_path):
    """The first forty are of one class."""
    features = np.repeat(np.eye(2), 45, axis=0) + 0.1 * random_features(90, 2)
    labels = [f"{i // 45}:1" for i in range(90)]
    folder = write_export(tmp_path / "f", features, labels=labels)
    arguments = "--train", folder, "--test", folder, "--c", 1, "--max-train"
    row, values = run(tmp_path, *arguments, 40)
    assert (values["train"]["images"], values["test"]["images"]) == (40, 90)
    assert (row["top1"], row["examples"]) == (1, 90)
    assert run(tmp_path, *arguments, 90)[1]["train"]["images"] == 90


def test_a_class_that_training_lacks_is_never_found(tmp_path):
    features = np.repeat(np.eye(3), 10, axis=0) + 0.01 * random_features(30, 3)
    labels = [f"{i // 10 + 3}:1" for i in range(30)]
    train = write_export(tmp_path / "f", features, labels=labels)
    labels = ["0:1"] * 10 + labels[10:]
    test = write_export(tmp_path / "t", features, labels=labels)
    row, _ = run(tmp_path, "--train", train, "--test", test, "--c", 1)
    assert row["top1"] == row["top5"] == pytest.approx(2 / 3)


def test_what_does_not_converge_is_told(tmp_path, capsys):
    (train, _, _), (test, _, _) = clusters(tmp_path)
    run(tmp_path, "--train", train, "--test", test, "--c", 1, "--iterations", 1)
    assert "fits that did not converge: 1; increase --iterations" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--c", "0"], "above 0"),
        (["--c"], "above 0"),
        (["--max-train", "0"], "above 0"),
        (["--max-train", "1"], "too few"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, arguments, message):
    folder = write_export(tmp_path / "f", random_features(20, 3), labels=["0", "1"] * 10)
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        main(["probe", "--train", str(folder), *arguments])
