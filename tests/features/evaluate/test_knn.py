# SPDX-License-Identifier: BSD-3-Clause
import json

import fsspec
import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier

from mlimages_jax.features.__main__ import main
from mlimages_jax.features.evaluate import knn as module
from mlimages_jax.features.evaluate.knn import Voters
from mlimages_jax.features.evaluate.labelled import read_labels
from mlimages_jax.features.evaluate.nearest import Neighbours, nearest
from mlimages_jax.features.evaluate.scorecard import LabelRules
from mlimages_jax.features.export.components import Moments
from tests.features.feature_sets import in_memory, random_features, write_export

SINGLE = LabelRules(single=True, threshold=0.7, missing_labels=0)
MANY = LabelRules(single=False, threshold=0.7, missing_labels=0)
HALVES = 0.4 / np.log(2)  # a temperature at which a cosine lower by 0.4 has half the weight


def at(*similarities):
    """Vectors with these cosines to (1, 0)."""
    return [[cosine, np.sqrt(1 - cosine**2)] for cosine in similarities]


def scores(labels, rules, *, k, temperature=HALVES):
    """Of (1, 0), by neighbours with the cosines 1, 0.6, 0.2, ..."""
    base = in_memory(at(*(1 - 0.4 * np.arange(len(labels)))), labels=list(labels))
    voters = Voters(read_labels([base])[0], rules, temperature=temperature)
    (found,) = nearest(in_memory([[1, 0]]), base, k=len(labels))
    return voters.scores(found, k=k)


def test_votes_of_one_class_each_worked_by_hand():
    """Weights 1, 1/2, 1/4, 1/8, 1/16: the nearest outvotes four others."""
    labels = ["0", "1", "1", "1", "1"]
    np.testing.assert_allclose(np.exp(scores(labels, SINGLE, k=5)), [[16 / 31, 15 / 31]], rtol=1e-5)
    np.testing.assert_allclose(np.exp(scores(labels, SINGLE, k=2)), [[2 / 3, 1 / 3]], rtol=1e-5)
    np.testing.assert_array_equal(scores(labels, SINGLE, k=1), [[0, -np.inf]])


def logit(fraction):
    return np.log(fraction / (1 - fraction))


def test_votes_of_many_labels_worked_by_hand():
    """Weights 1, 1/2, 1/4, 1/8. Of class 0 neighbour 1 is not sure, of class 1 neighbour 0."""
    labels = ["0:1 1:-1", "1:1 0:0.5", "0:0 1:0", "1:0.7 2:0"]
    absent = scores(labels, MANY, k=4)
    np.testing.assert_allclose(
        absent[:, :2], [[logit(1 / (1 + 1 / 4 + 1 / 8)), logit(0.625 / 0.875)]], rtol=1e-5
    )
    assert absent[0, 2] == -np.inf
    unknown = scores(labels, MANY._replace(missing_labels=-1.0), k=4)
    np.testing.assert_allclose(unknown[:, :2], [[logit(1 / 1.25), logit(0.625 / 0.875)]], rtol=1e-5)


def test_a_share_of_all_votes_is_finite_and_the_best():
    found = scores(["0:1 1:1", "0:1"], MANY, k=2)
    assert np.isfinite(found).all()
    assert found[0, 0] > 20 > found[0, 1]


def test_the_smallest_temperature_leaves_every_neighbour_a_vote():
    found = scores(["0", "1", "1", "2"], SINGLE, k=4, temperature=1e-6)
    assert np.isfinite(found).all()
    assert found[0].argmax() == 0


@pytest.mark.parametrize("k", [1, 5, 20])
def test_equals_scikit_learn(k):
    train, test = random_features(60, 8), random_features(40, 8, seed=1)
    classes = np.random.default_rng(2).integers(0, 7, 60)
    base = in_memory(train, labels=[str(c) for c in classes])
    (found,) = nearest(in_memory(test), base, k=20)
    ours = Voters(read_labels([base])[0], SINGLE, temperature=0.07).scores(found, k=k)
    theirs = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda far: np.exp((1 - far) / 0.07)
    ).fit(train, classes)
    np.testing.assert_allclose(np.exp(ours), theirs.predict_proba(test), atol=1e-4)


def run(tmp_path, *arguments):
    """Returns the results by k, and everything else of the JSON file."""
    output = tmp_path / "knn.json"
    main(["knn", *map(str, arguments), "--output", str(output)])
    values = json.loads(output.read_text())
    return {row["k"]: row for row in values.pop("results")}, values


def test_the_command_on_one_class_each_equals_scikit_learn(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, "_VOTES_AT_ONCE", 30)
    rng = np.random.default_rng(0)
    classes, other = rng.integers(0, 8, 70), rng.integers(0, 8, 50)
    means = random_features(8, 12, seed=3)
    train = means[classes] + 2 * random_features(70, 12, seed=4)
    test = means[other] + 2 * random_features(50, 12, seed=5)
    folders = [
        write_export(tmp_path / "train", train, labels=[f"{c}:1" for c in classes],
                     errors={3: "missing: x"}),
        write_export(tmp_path / "test", test, labels=[f"{c}:1" for c in other],
                     errors={0: "missing: x", 1: "missing: x"}, file_format="parquet"),
    ]  # fmt: skip
    rows, values = run(
        tmp_path, "--train", folders[0], "--test", folders[1], "--k", 5, 15, "--temperature", 0.1
    )
    train, classes = np.delete(train, 3, axis=0), np.delete(classes, 3)
    test, other = test[2:], other[2:]
    for k in (5, 15):
        theirs = KNeighborsClassifier(
            k, metric="cosine", algorithm="brute", weights=lambda far: np.exp((1 - far) / 0.1)
        ).fit(train, classes)
        assert rows[k]["top1"] == pytest.approx(theirs.score(test, other))
        fractions = theirs.predict_proba(test)
        own = np.take_along_axis(fractions, other[:, None], axis=1)
        among_five = (own[:, 0] > 0) & ((fractions > own).sum(1) < 5)
        assert rows[k]["top5"] == pytest.approx(among_five.mean())
    assert 0.3 < rows[15]["top1"] < rows[15]["top5"] < 1
    assert values["task"] == "single"
    assert (values["classes"], values["temperature"]) == (8, 0.1)
    assert (values["train"]["images"], values["train"]["unreadable"]) == (69, 1)
    assert values["test"]["view"] == {"size": 32}
    text = capsys.readouterr().out
    assert f"{rows[15]['top1']:.4f}" in text
    assert "            69 training images" in text
    assert "             3 images skipped: unreadable" in text


def test_an_export_in_a_bucket_is_read_there(tmp_path):
    rows, labels = random_features(30, 6), [f"{i % 3}" for i in range(30)]
    url = f"memory://{tmp_path.name}/features"
    write_export(url, rows, labels=labels, file_format="parquet")
    found, values = run(tmp_path, "--train", url, "--test", f"{url}/", "--k", 3)
    assert values["train"]["folder"] == values["test"]["folder"] == url
    folder = write_export(tmp_path / "features", rows, labels=labels, file_format="parquet")
    assert found == run(tmp_path, "--train", folder, "--test", folder, "--k", 3)[0]
    main(["duplicates", url, "--output", str(tmp_path / "duplicates.tsv")])
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


def test_the_command_on_many_labels_equals_scikit_learn(tmp_path):
    rng = np.random.default_rng(1)
    features = [random_features(80, 6, seed=6), random_features(40, 6, seed=7)]
    truth = [
        np.argsort(rows[:, :5] + rng.normal(0, 0.3, (len(rows), 5)))[:, 2:] for rows in features
    ]
    folders = []
    for name, rows, top in zip(("train", "test"), features, truth, strict=True):
        labels = ["\t".join(f"{c}:1" for c in row) for row in top.tolist()]
        folders.append(write_export(tmp_path / name, rows, labels=labels))
    rows, values = run(tmp_path, "--train", folders[0], "--test", folders[1], "--k", 10)
    dense = [np.zeros((len(top), 5)) for top in truth]
    for matrix, top in zip(dense, truth, strict=True):
        np.put_along_axis(matrix, top, 1, axis=1)
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in features]
    similarity = unit[1].astype(np.float64) @ unit[0].T
    nearest_ten = np.argsort(-similarity, axis=1)[:, :10]
    weights = np.exp(np.take_along_axis(similarity, nearest_ten, 1) / 0.07)
    fractions = np.einsum("mk,mkc->mc", weights, dense[0][nearest_ten]) / weights.sum(1)[:, None]
    expected = average_precision_score(dense[1], np.minimum(fractions.round(9), 1))
    assert rows[10]["mAP"] == pytest.approx(expected, abs=1e-6)
    assert values["task"] == "multi" and values["index"] == "exact"

    pytest.importorskip("faiss", reason="pip install -e '.[index]'")
    arguments = "--train", folders[0], "--test", folders[1], "--k", 10, "--index", "ivf"
    by_index, values = run(tmp_path, *arguments, "--lists", 4, "--probes", 4)
    assert by_index[10]["mAP"] == pytest.approx(rows[10]["mAP"], abs=0.02)
    assert values["recall"] > 0.98 and (values["lists"], values["checked"]) == (4, 40)
    _, values = run(tmp_path, *arguments, "--check", 0)
    assert "recall" not in values and (values["lists"], values["probes"]) == (2, 16)


def test_how_labels_count_can_be_said(tmp_path):
    """Where nothing is known to be absent every positive is above all negatives."""
    labels = [f"{i % 3}:1" for i in range(30)]
    folder = write_export(tmp_path / "f", random_features(30, 4), labels=labels)
    arguments = "--train", folder, "--test", folder, "--k", 9
    single, _ = run(tmp_path, *arguments)
    many, values = run(tmp_path, *arguments, "--task", "multi")
    unknown, _ = run(tmp_path, *arguments, "--task", "multi", "--missing-labels", "unknown")
    assert "top1" in single[9]
    assert "top1" not in many[9]
    assert many[9]["mAP"] < unknown[9]["mAP"] == 1
    assert values["task"] == "multi"
    sure, values = run(tmp_path, *arguments, "--task", "multi", "--threshold", 0.9)
    assert sure[9] == many[9]
    assert values["threshold"] == 0.9


def test_a_part_is_held_out_by_name(tmp_path, capsys):
    """Rows of one name are on one side, whatever else is in the set."""
    features, names = random_features(60, 4), [f"{i % 40}.jpg" for i in range(60)]
    labels = [f"class {i % 2}" for i in range(60)]
    folder = write_export(tmp_path / "f", features, names=names, labels=labels)
    _, values = run(tmp_path, "--train", folder, "--held-out", 0.3, "--k", 3)
    assert values["test"]["names_in_train_too"] == 0
    assert values["train"]["images"] + values["test"]["images"] == 60
    assert 8 < values["test"]["images"] < 30
    assert "2 classes, one per image" in capsys.readouterr().out
    half = write_export(tmp_path / "half", features[:40], names=names[:40], labels=labels[:40])
    _, fewer = run(tmp_path, "--train", half, "--held-out", 0.3, "--k", 3)
    doubled = sum(names.count(name) == 2 for name in set(names))
    assert doubled == 20
    assert fewer["test"]["images"] <= values["test"]["images"]


def test_labels_may_come_from_a_file(tmp_path, capsys):
    """(1, 0) is a cat and (0, 1) a dog; one of the images is in no file."""
    train = write_export(tmp_path / "train", [[1, 0], [0, 1], [5, 5]], names=["a", "b", "c"])
    test = write_export(tmp_path / "test", [[1, 0.1], [0.1, 1]], names=["a", "b"])
    (tmp_path / "train.tsv").write_text("a\tcat\nb\tdog\n")
    (tmp_path / "test.tsv").write_text("a\tdog\nb\tdog\n")
    files = "--labels", tmp_path / "train.tsv", "--test-labels", tmp_path / "test.tsv"
    rows, values = run(tmp_path, "--train", train, "--test", test, *files, "--k", 1)
    assert rows[1]["top1"] == rows[1]["top5"] == 0.5
    assert (values["unlabelled"], values["test"]["names_in_train_too"]) == (1, 2)
    rows, _ = run(tmp_path, "--train", train, "--test", test, *files[:2], "--k", 1)
    assert rows[1]["top1"] == 1
    assert "             1 images skipped: without labels" in capsys.readouterr().out


def test_the_usual_numbers_of_neighbours(tmp_path):
    labels = ["1"] * 130 + ["0"] * 130
    folder = write_export(tmp_path / "f", random_features(260, 3), labels=labels)
    rows, _ = run(tmp_path, "--train", folder, "--test", folder)
    assert list(rows) == [10, 20, 100, 200]
    few = write_export(tmp_path / "few", random_features(25, 3), labels=["1"] * 25)
    rows, _ = run(tmp_path, "--train", few, "--test", folder)
    assert list(rows) == [10, 20]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--k", "7"], "--k 7: give numbers from 1 to 6"),
        (["--k", "0"], "--k 0"),
        (["--temperature", "0"], "--temperature 0"),
        (["--threshold", "0"], r"--threshold 0\.0"),
        (["--test", "WIDE"], "has 3 numbers per image.* 4: export both with the same network"),
        (["--test", "SHORT"], "were not stored along the same principal components"),
        (["--task", "single"], "several labels"),
        (["--features", "logits"], "no 'logits'"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, arguments, message):
    train = write_export(tmp_path / "f", random_features(6, 3), labels=["0:1 1:1"] * 6)
    wide = write_export(tmp_path / "wide", random_features(6, 4), labels=["0:1"] * 6)
    moments = Moments(4)
    moments.add(random_features(9, 4))
    short = write_export(
        tmp_path / "short", random_features(6, 4), labels=["0:1"] * 6,
        components=moments.components(3),
    )  # fmt: skip
    sets = {"WIDE": str(wide), "SHORT": str(short)}
    arguments = [sets.get(word, word) for word in arguments]
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        main(["knn", "--train", str(train), "--test", str(train), *arguments])


@pytest.mark.parametrize("held_out", ["0", "1", "0.000001"])
def test_a_side_without_images_is_refused(tmp_path, held_out):
    train = write_export(tmp_path / "f", random_features(6, 3), labels=["0:1"] * 6)
    with pytest.raises(SystemExit, match="--held-out"):
        main(["knn", "--train", str(train), "--held-out", held_out])


def test_a_missing_folder_of_the_output_is_named_before_the_work(tmp_path):
    with pytest.raises(SystemExit, match=r"no/knn\.json: its folder does not exist"):
        main(["knn", "--train", "nowhere", "--output", str(tmp_path / "no" / "knn.json")])


def test_neighbours_are_cut_into_parts_in_order(monkeypatch):
    monkeypatch.setattr(module, "_VOTES_AT_ONCE", 9)
    found = Neighbours(np.arange(5), np.ones((5, 1)), np.arange(5)[:, None])
    parts = module._parts(found, num_classes=4)
    assert [part.queries.tolist() for part in parts] == [[0, 1], [2, 3], [4]]
