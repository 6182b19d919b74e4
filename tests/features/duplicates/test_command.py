# SPDX-License-Identifier: BSD-3-Clause
import dataclasses
import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from mlimages_jax.features.__main__ import main
from mlimages_jax.features.duplicates import bounds
from mlimages_jax.features.duplicates import command as command
from mlimages_jax.features.duplicates import search as module
from mlimages_jax.features.duplicates.search import DuplicateSearch
from tests.features.feature_sets import Watched, cosines, in_memory, random_features, write_export


def run(tmp_path, folder, *arguments):
    """The rows of the table, split."""
    output = tmp_path / "duplicates.tsv"
    main(["duplicates", str(folder), "--output", str(output), *map(str, arguments)])
    header, *lines = output.read_text(encoding="utf-8").splitlines()
    assert header == "group\tname\tsimilarity\tsize\trow"
    assert [path.name for path in tmp_path.iterdir() if "tmp" in path.name] == []
    return [tuple(line.split("\t")) for line in lines]


def turned(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_worked_by_hand(tmp_path, capsys):
    """Of 0, 10 and 20 degrees the middle one joins the others: cos 10 = 0.9848, cos 20 = 0.9397."""
    features = turned(90, 0, 90, 20, 10, 180, 90, 181, 45)
    names = ["k", "a b.jpg", "c", "d\te", "f", "g", "h", "i", "j"]
    errors = {0: "missing: x"}
    folder = write_export(tmp_path / "f", features, names=names, errors=errors)
    assert run(tmp_path, folder, "--threshold", 0.98) == [
        ("1", "a b.jpg", "1.0000", "3", "1"),
        ("1", r"d\te", "0.9397", "3", "3"),
        ("1", "f", "0.9848", "3", "4"),
        ("2", "c", "1.0000", "2", "2"),
        ("2", "h", "1.0000", "2", "6"),
        ("3", "g", "1.0000", "2", "5"),
        ("3", "i", "0.9998", "2", "7"),
    ]
    assert [tuple(line.split(maxsplit=1)) for line in capsys.readouterr().out.splitlines()] == [
        ("8", "images"),
        ("1", "images skipped: unreadable"),
        ("3", "groups"),
        ("7", "images in groups"),
        ("4", "images to remove, to keep one of each group"),
        ("1", "of these with exactly the same features as another"),
        ("1", "similarity to the first from 1"),
        ("1", "similarity to the first from 0.99"),
        ("1", "similarity to the first from 0.98"),
        ("1", "similarity to the first from 0.9"),
        ("written:", str(tmp_path / "duplicates.tsv")),
    ]


def test_the_threshold_itself_is_enough(tmp_path):
    folder = write_export(tmp_path / "f", [[1, 0], [3, 4], [0, 1]])
    assert [row[1] for row in run(tmp_path, folder, "--threshold", 0.8)] == ["1.jpg", "2.jpg"]
    assert run(tmp_path, folder, "--threshold", 0.8001) == []
    assert len(run(tmp_path, folder, "--threshold", 0.5)) == 3


def test_the_length_of_features_does_not_count(tmp_path):
    folder = write_export(tmp_path / "f", [[1, 2], [100, 200], [2, 1]])
    assert [row[4] for row in run(tmp_path, folder, "--threshold", 1)] == ["0", "1"]


def test_features_of_zeros_are_like_each_other_only(tmp_path):
    folder = write_export(tmp_path / "f", [[0, 0], [1, 1], [0, 0], [1, 1.1]])
    assert [row[2:] for row in run(tmp_path, folder)] == [
        ("1.0000", "2", "0"), ("1.0000", "2", "2"), ("1.0000", "2", "1"), ("0.9989", "2", "3"),
    ]  # fmt: skip


def near_duplicates(count, width, *, seed=0):
    """Features of which every third is close to an earlier one, and every ninth the same."""
    rng = np.random.default_rng(seed)
    rows = random_features(count, width, seed=seed)
    for i in range(3, count, 3):
        earlier = rng.integers(0, i)
        rows[i] = rows[earlier] * (1 if i % 9 == 0 else rng.uniform(0.5, 1, width))
    return rows


def plain_groups(similar):
    """The oracle: connected parts of a table of bools."""
    label = np.arange(len(similar))
    while True:
        spread = np.where(similar, label, len(similar)).min(axis=1)
        if (spread == label).all():
            break
        label = spread
    return {tuple(np.flatnonzero(label == one)) for one in label if (label == one).sum() > 1}


def found(search):
    return {tuple(group.tolist()) for group in search.groups.members()}


@pytest.mark.parametrize(
    ("width", "tile", "pieces"), [(24, 1000, 1000), (5, 1000, 7), (1, 16, 50), (300, 7, 1)]
)
def test_equals_all_cosines_for_any_short_vectors_tiles_and_pieces(
    tmp_path, monkeypatch, width, tile, pieces
):
    monkeypatch.setattr(module, "PAIRS_AT_ONCE", pieces)
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 10)
    features = near_duplicates(150, 24)
    for threshold in (0.999, 0.97, 0.8):
        search = DuplicateSearch(
            in_memory(features), threshold=threshold, scratch=tmp_path / "s", width=width, tile=tile
        )
        same = 150 - len(np.unique(features, axis=0))
        assert search.identical == same > 10
        search.compare_all()
        expected = plain_groups(cosines(features, features) >= threshold - 1e-7)
        assert found(search) == expected
        assert len(expected) > (2 if threshold == 0.8 else 10)


def test_features_are_read_a_block_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PAIRS_AT_ONCE", 8)
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 10)
    monkeypatch.setattr(bounds, "_ROWS_AT_ONCE", 12)
    images = in_memory(near_duplicates(150, 24))
    watched = dataclasses.replace(images, array=Watched(images.array))
    search = DuplicateSearch(watched, threshold=0.9, scratch=tmp_path / "s", tile=20)
    search.compare_all()
    search.recall(150)
    assert watched.array.longest == 16  # two images of every pair


def test_what_is_left_out_takes_no_part(tmp_path):
    features = near_duplicates(60, 8)
    chosen = np.flatnonzero(np.arange(60) % 4 != 1)
    search = DuplicateSearch(
        in_memory(features).select(chosen), threshold=0.95, scratch=tmp_path / "s"
    )
    search.compare_all()
    rest = features[chosen]
    assert found(search) == plain_groups(cosines(rest, rest) >= 0.95)


def test_lists_find_most_and_say_how_many(tmp_path, capsys):
    pytest.importorskip("faiss", reason="pip install -e '.[index]'")
    features = near_duplicates(300, 24)
    folder = write_export(tmp_path / "f", features)
    exact = run(tmp_path, folder, "--threshold", 0.95)
    assert "random images" not in capsys.readouterr().out
    arguments = ["--threshold", 0.95, "--index", "ivf"]
    everywhere = run(tmp_path, folder, *arguments, "--lists", 5, "--probes", 9)
    assert everywhere == exact
    unique = np.unique(features, axis=0, return_index=True)[1]
    assert f"of {len(unique)} random images compared" in (text := capsys.readouterr().out)
    assert "(100.00%)" in text
    most = run(tmp_path, folder, *arguments, "--probes", 1)
    assert 0.5 * len(exact) < len(most) < len(exact)
    said = capsys.readouterr().out.splitlines()[-2]
    near = np.triu(cosines(features, features) >= 0.95, 1)
    group_of = {int(row[4]): row[0] for row in most}
    pairs = [(i, j) for i, j in zip(*np.nonzero(near), strict=True) if {i, j} <= set(unique)]
    together = sum(group_of.get(i, i) == group_of.get(j, j) for i, j in pairs)
    assert len(pairs) > 50 > len(pairs) - together > 0
    # Every pair is seen from both of its images.
    assert f"{2 * together:,} of {2 * len(pairs):,} pairs are in one group" in said
    run(tmp_path, folder, *arguments, "--check", 0)
    assert "random images" not in capsys.readouterr().out


def test_some_images_are_drawn_for_the_recall(tmp_path):
    """Short vectors of four numbers let many pairs through that are none."""
    features = near_duplicates(200, 24)
    search = DuplicateSearch(in_memory(features), threshold=0.95, scratch=tmp_path / "s", width=3)
    near = np.triu(cosines(features, features) >= 0.95, 1)
    search.groups.join(*(side[::3] for side in np.nonzero(near)))  # a third is found
    whole, part = search.recall(1000), search.recall(60)
    different = features[np.unique(features, axis=0, return_index=True)[1]]
    assert (whole.images, part.images) == (len(different), 60)
    assert whole.pairs == (cosines(different, different) >= 0.95).sum() - len(different)
    assert part.pairs / 60 == pytest.approx(whole.pairs / whole.images, rel=0.5)
    assert part == search.recall(60)
    assert 0 < whole.found < whole.pairs
    assert whole.found / whole.pairs == pytest.approx(part.found / part.pairs, abs=0.25)


@pytest.mark.parametrize("pieces", [1, 2, 3, 4])
def test_the_table_is_written_in_pieces(tmp_path, monkeypatch, pieces):
    folder = write_export(tmp_path / "f", near_duplicates(50, 12))
    whole = run(tmp_path, folder)
    assert len(whole) > 10
    monkeypatch.setattr(command, "PAIRS_AT_ONCE", pieces)
    assert run(tmp_path, folder) == whole


def test_former_names_of_the_approximate_search(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        DuplicateSearch, "compare_in_lists", lambda _, *count, **more: asked.append((count, more))
    )
    folder = write_export(tmp_path / "f", random_features(100, 3))
    run(tmp_path, folder, "--index", "ivf")
    words = ["duplicates", str(folder), "--output", str(tmp_path / "d.tsv")]
    main([*words, "--approximate", "--buckets", "7", "--memberships=3"])
    assert asked == [((0,), {"probes": 4}), ((7,), {"probes": 3})]


@pytest.mark.parametrize("file_format", ["parquet", "npz", "array_record"])
def test_other_formats_give_the_same_table(tmp_path, file_format):
    features, errors = near_duplicates(50, 12), {4: "missing: x"}
    tables = [
        run(tmp_path, write_export(tmp_path / name, features, errors=errors, file_format=name))
        for name in ("npy", file_format)
    ]
    assert tables[0] == tables[1]
    assert len(tables[0]) > 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threshold", "0"], r"--threshold 0\.0"),
        (["--threshold", "1.1"], r"--threshold 1\.1"),
        (["--probes", "0"], "--probes"),
        (["--check", "-1"], "--check"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, arguments, message):
    folder = write_export(tmp_path / "f", np.eye(3))
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        run(tmp_path, folder, *arguments)
    with pytest.raises(SystemExit, match=r"no/d\.tsv: its folder does not exist"):
        main(["duplicates", str(folder), "--output", str(tmp_path / "no" / "d.tsv")])


def encoded(image, quality=60):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def small(image, *, both_ways):
    """8 x 8 colours, as dark as they are; the mean of the image and its mirror, or not."""
    pixels = 255.0 - np.asarray(image.convert("RGB").resize((8, 8), Image.Resampling.BOX))
    return (pixels + both_ways * pixels[:, ::-1]).reshape(-1)


@pytest.mark.parametrize("both_ways", [False, True])
def test_copies_of_real_images(tmp_path, stamps_dir, both_ways):
    """Features that do not tell left from right find mirrored copies, others do not."""
    paths = sorted((stamps_dir / "images").glob("animals_mammals*"))[:60]
    images = {path.name: Image.open(path).convert("RGB") for path in paths}
    features = {name: small(image, both_ways=both_ways) for name, image in images.items()}
    for name, image in list(images.items())[::6]:
        half = image.resize((image.width // 2, image.height // 2))
        copies = {"smaller": half, "again": image, "mirrored": ImageOps.mirror(image)}
        for kind, copy in copies.items():
            features[f"{kind} {name}"] = small(encoded(copy), both_ways=both_ways)
    folder = write_export(tmp_path / "f", list(features.values()), names=list(features))
    rows = run(tmp_path, folder, "--threshold", 0.998)
    group_of = {name: group for group, name, *_ in rows}
    originals = [name.removeprefix("again ") for name in features if name.startswith("again ")]
    assert len(originals) == 10
    together = {
        kind: sum(group_of.get(name) == group_of.get(f"{kind} {name}", "") for name in originals)
        for kind in ("smaller", "again", "mirrored")
    }
    assert together["again"] == together["smaller"] == 10
    assert together["mirrored"] == 10 if both_ways else together["mirrored"] < 5
    assert len(group_of) < 50
