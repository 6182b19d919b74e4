# SPDX-License-Identifier: BSD-3-Clause
from pathlib import Path

import numpy as np
import pytest
import tyro
from hypothesis import given
from hypothesis import strategies as st

from mlimages_jax.image_shards.outcome import FAILED, OK, Image
from mlimages_jax.labels import lists as lists_module
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import LabelListError, read_label_list, write_label_list
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare import label_lists as label_lists_module
from mlimages_jax.prepare.label_lists import labels
from mlimages_jax.prepare.labels_job import Classes, LabelsJob
from mlimages_jax.prepare.manifest import Manifest
from tests.support.drawn_lists import STEADY, as_rows, hierarchies, label_lists, make_hierarchy

# animal(3) -> dog(1) -> {puppy(0), hound(4)}; plant(2)
SMALL = make_hierarchy([1, 3, -1, -1, 1])


@pytest.fixture
def dictionary(tmp_path) -> Path:
    SMALL.to_file(tmp_path / "dictionary.txt")
    return tmp_path / "dictionary.txt"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def run(capsys, *arguments: str | Path) -> str:
    tyro.cli(labels, args=[str(argument) for argument in arguments])
    return capsys.readouterr().out


def test_closing_worked_by_hand(tmp_path, dictionary, capsys):
    source = write(tmp_path / "list.txt", "a b.jpg\t4:0.5\t2:-1\nb.jpg\nc.jpg\t3:1\t4:0\n")
    output = tmp_path / "closed.txt"
    out = run(capsys, source, "--dictionary", dictionary, "--close", "--output", output)
    assert output.read_text() == "a b.jpg\t1:0.5\t2:-1\t3:0.5\t4:0.5\nb.jpg\t\nc.jpg\t3:1\t4:0\n"
    assert [line.split(maxsplit=1) for line in out.splitlines()] == [
        ["3", "rows read"],
        ["3", "rows written"],
        ["4", "labels read"],
        ["2", "added by closing, to 1 rows"],
        ["6", "labels written"],
        ["1", "-1 (unknown)"],
        ["1", "0 (absent)"],
        ["3", "below 0.7"],
        ["0", "0.7 to 1"],
        ["1", "1"],
        ["written:", str(output)],
    ]


def test_one_command_makes_the_lists_of_all_splits_and_reads_manifests_once(
    tmp_path, capsys, monkeypatch
):
    lists = [
        write(tmp_path / name, f"{name}/1.jpg\t1\n{name}/2.jpg\t2\n")
        for name in ("train_urls.txt", "val_urls.txt", "train_image_id.txt")
    ]
    with Manifest(tmp_path / "manifest.sqlite") as manifest:
        manifest.put([
            Image(name=f"{path.name}/1.jpg", status=OK, time=1.0, file=f"{path.stem}.jpg")
            for path in lists
        ])  # fmt: skip
    opened = []
    opening = label_lists_module.open_outcomes
    monkeypatch.setattr(
        label_lists_module, "open_outcomes", lambda places: opened.append(places) or opening(places)
    )
    arguments = [*lists, "--manifests", tmp_path / "manifest.sqlite", "--output-dir"]
    run(capsys, *arguments, tmp_path / "new")
    assert {path.name: path.read_text() for path in (tmp_path / "new").iterdir()} == {
        "train_image_list.txt": "train_urls.jpg\t1:1\ntrain_image_id.jpg\t1:1\n",
        "val_image_list.txt": "val_urls.jpg\t1:1\n",
    }
    assert len(opened) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give either --output"),
        (["--output=a", "--output-dir=b"], "give either --output"),
        (["--output-dir=b"], "other.txt: --output-dir takes lists whose names begin with train"),
    ],
)
def test_where_to_write_is_clear(tmp_path, capsys, options, message):
    with pytest.raises(PrepareError, match=message):
        run(capsys, write(tmp_path / "other.txt", "a.jpg\t1\n"), *options)
    assert not list(tmp_path.glob("[ab]"))


def test_corrections_worked_by_hand(tmp_path, dictionary, capsys):
    """Hound becomes a kind of puppy: the row of hounds gets one label more."""
    ids = SMALL.ids
    corrections = write(
        tmp_path / "corrections.tsv",
        f"category_id\tparent_id\tinstead_of\n{ids[4]}\t{ids[0]}\t{ids[1]}\n{ids[2]}\tsushi\t-\n",
    )
    source = write(tmp_path / "list.txt", "a.jpg\t4:0.5\nb.jpg\t2\n")
    output = tmp_path / "closed.txt"
    arguments = [source, "--dictionary", dictionary, "--corrections", corrections]
    out = run(capsys, *arguments, "--close", "--output", output)
    assert output.read_text() == "a.jpg\t0:0.5\t1:0.5\t3:0.5\t4:0.5\nb.jpg\t2:1\n"
    assert (
        "1     of these by corrections (1 classes have another parent; 1 corrections do not apply)"
    ) in out
    assert "0     not added due to corrections" in out
    with pytest.raises(PrepareError, match="give --close too"):
        run(capsys, *arguments, "--output", output)


def test_without_steps_the_list_is_copied(tmp_path, capsys):
    source = write(tmp_path / "list.txt", "a.jpg  7 3:0.5\n\nb.jpg\t1000000:0.25\n")
    run(capsys, source, "--output", source)  # onto itself
    assert source.read_text() == "a.jpg\t7:1\t3:0.5\nb.jpg\t1000000:0.25\n"


def test_merging_lists_worked_by_hand(tmp_path, capsys):
    first = write(tmp_path / "first.txt", "b\t3:0.5\t1:-1\na\t2\nb\t1:0\n")
    second = write(tmp_path / "second.txt", "c\t9\na\t2:0.5\t4:0.25\n")
    out = run(capsys, first, second, "--merge", "--output", tmp_path / "merged.txt")
    expected = "b\t1:0\t3:0.5\na\t2:1\t4:0.25\nc\t9:1\n"
    assert (tmp_path / "merged.txt").read_text() == expected
    assert "5 rows read\n             2   merged into others\n             3 rows written" in out


def test_unknown_classes_are_an_error_with_the_line(tmp_path, dictionary, capsys):
    source = write(tmp_path / "list.txt", "a\t1\nb\t2\t5\n")
    with pytest.raises(LabelListError, match=r"list\.txt:2: class 5 is out of range 0\.\.4"):
        run(capsys, source, "--dictionary", dictionary, "--output", tmp_path / "new.txt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dictionary.txt", "list.txt"]


def test_unknown_classes_are_dropped_and_counted(tmp_path, dictionary, capsys):
    source = write(tmp_path / "list.txt", "a\t7:0.5\t1\t5\nb\t7\nc\nd\t2\n")
    output = tmp_path / "new.txt"
    out = run(
        capsys, source, "--dictionary", dictionary, "--unknown-classes", "drop", "--output", output
    )
    assert output.read_text() == "a\t1:1\nb\t\nc\t\nd\t2:1\n"
    counts = [line.split(maxsplit=1) for line in out.splitlines()]
    assert counts[2:8] == [
        ["5", "labels read"],
        ["3", "dropped: unknown class"],
        ["2", "7"],
        ["1", "5"],
        ["1", "rows left without any label"],
        ["2", "labels written"],
    ]


def test_many_unknown_classes_are_summed_up(tmp_path, dictionary, capsys):
    labels_ = "\t".join(str(class_) for class_ in range(5, 30))
    source = write(tmp_path / "list.txt", f"a\t{labels_}\nb\t29\n")
    out = run(
        capsys, source, "--dictionary", dictionary, "--unknown-classes", "drop",
        "--output", tmp_path / "new.txt",
    )  # fmt: skip
    assert "             2     29\n" in out
    assert "             5     5 more classes\n" in out


def test_classes_of_another_dictionary(tmp_path, dictionary, capsys):
    other = Hierarchy(("n4", "x", "n3"), ("hound", "cat", "animal"), np.array([2, 2, -1]))
    other.to_file(tmp_path / "other.txt")
    source = write(tmp_path / "list.txt", "a\t2:0.5\t0:0.75\nb\t1\t2\n")
    arguments = [source, "--dictionary", dictionary, "--from-dictionary", tmp_path / "other.txt"]
    arguments += ["--output", tmp_path / "new.txt"]
    with pytest.raises(PrepareError, match=r"list\.txt: b: class 1 x \(cat\).*--unknown-classes"):
        run(capsys, *arguments)
    assert not (tmp_path / "new.txt").exists()
    out = run(capsys, *arguments, "--unknown-classes", "drop", "--close")
    assert (tmp_path / "new.txt").read_text() == "a\t1:0.75\t3:0.75\t4:0.75\nb\t3:1\n"
    assert "1     1 x (cat)" in out


def put(path: Path, *images: Image) -> Path:
    with Manifest(path) as manifest:
        manifest.put(images)
    return path


def failed(name: str, error: str) -> Image:
    return Image(name=name, status=FAILED, time=0.0, error=error)


def ok(name: str, file: str) -> Image:
    return Image(name=name, status=OK, time=0.0, file=file)


def test_lists_of_urls_become_lists_of_files(tmp_path, capsys):
    first = put(
        tmp_path / "0.sqlite",
        ok("http://a/1.jpg", "a/00/1.jpg"),
        failed("http://a/2.jpg", "http_404"),
        failed("http://a/3.jpg", "timeout"),
        failed("http://a/5.jpg", "timeout"),
        ok("http://a/6.jpg", "a/00/6.jpg"),
    )
    second = put(
        tmp_path / "1.sqlite",
        ok("http://a/3.jpg", "a/00/my 3.jpg"),
        failed("http://a/2.jpg", "timeout"),
        failed("http://a/1.jpg", "timeout"),
        ok("http://a/6.jpg", "elsewhere/6.jpg"),
    )
    source = write(
        tmp_path / "list.txt",
        "".join(f"http://a/{i}.jpg\t{i}:1\n" for i in (3, 5, 2, 1, 4, 6)),
    )
    output = tmp_path / "train_image_list.txt"
    out = run(capsys, source, "--manifests", first, second, "--output", output)
    assert output.read_text() == (
        "a/00/my 3.jpg\t3:1\na/00/1.jpg\t1:1\na/00/6.jpg\t6:1\n"  # the first manifest wins
    )
    assert [line.split(maxsplit=1) for line in out.splitlines()[:5]] == [
        ["6", "rows read"],
        ["1", "left out: timeout"],
        ["1", "left out: http_404"],
        ["1", "left out: in no manifest"],
        ["3", "rows written"],
    ]


def test_rows_of_one_file_are_merged(tmp_path, capsys):
    manifest = put(tmp_path / "m.sqlite", ok("u1", "same.jpg"), ok("u2", "same.jpg"))
    source = write(tmp_path / "list.txt", "u1\t1\nu2\t2\n")
    output = tmp_path / "new.txt"
    run(capsys, source, "--manifests", manifest, "--merge", "--output", output)
    assert output.read_text() == "same.jpg\t1:1\t2:1\n"


def test_odd_names_of_files_are_escaped_and_unsafe_ones_set_aside(tmp_path, capsys):
    files = ["two  spaces.jpg", "at 12:30", "../../etc/passwd", "a.jpg"]
    rows = [ok(f"u{number}", file) for number, file in enumerate(files)]
    manifest = put(tmp_path / "m.sqlite", *rows)
    source = write(tmp_path / "list.txt", "".join(f"u{number}\t1\n" for number in range(4)))
    output = tmp_path / "new.txt"
    printed = run(capsys, source, "--manifests", manifest, "--output", output)
    assert output.read_text() == "two \\x20spaces.jpg\t1:1\nat 12\\x3a30\t1:1\na.jpg\t1:1\n"
    assert "1   left out: unsafe_name" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "x"], "no label list"),
        (["list.txt", "--output", "x", "--close"], "--dictionary"),
        (["list.txt", "--output", "x", "--unknown-classes", "drop"], "--dictionary"),
        (["list.txt", "--output", "x", "--from-dictionary", "other.txt"], "--dictionary"),
    ],
)
def test_what_does_not_go_together_is_said(capsys, arguments, message):
    with pytest.raises(PrepareError, match=message):
        run(capsys, *arguments)


def test_a_missing_manifest_or_list_is_named(tmp_path, capsys):
    source = write(tmp_path / "list.txt", "u1\t1\n")
    for arguments in ([source, "--manifests", tmp_path / "no.sqlite"], [tmp_path / "no.txt"]):
        with pytest.raises(FileNotFoundError, match=r"no\."):
            run(capsys, *arguments, "--output", tmp_path / "new.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["list.txt"]


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"])
def test_a_list_without_rows_is_an_error(tmp_path, capsys, content):
    (source := tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(PrepareError, match=r"list\.txt: there are no rows"):
        run(capsys, source, "--output", tmp_path / "new.txt")
    assert not (tmp_path / "new.txt").exists()


@pytest.mark.slow
@STEADY
@given(st.data(), st.booleans(), st.booleans())
def test_all_steps_equal_a_plain_loop(tmp_path_factory, data, close, merge):
    """Two lists, classes mapped and dropped, merged, closed; many small parts."""
    source, target = data.draw(hierarchies()), data.draw(hierarchies())
    drawn = data.draw(st.lists(label_lists(len(source)), min_size=1, max_size=2))
    folder = tmp_path_factory.getbasetemp()
    paths = [folder / f"{i}.txt" for i in range(len(drawn))]
    for path, rows in zip(paths, drawn, strict=True):
        write_label_list(path, rows)
    job = LabelsJob(
        lists=paths, classes=Classes(source, target, drop=True), close=close, merge=merge
    )
    if not sum(map(len, drawn)):
        with pytest.raises(PrepareError, match="there are no rows"):
            job.run(folder / "new.txt")
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lists_module, "_CHUNK_BYTES", 256)
        job.run(folder / "new.txt")

    rows = [
        (name, {c: v for c, v in labels_.items() if c < len(target)})  # ids are n0, n1, ...
        for label_list in drawn
        for name, labels_ in as_rows(label_list)
    ]
    if merge:
        united: dict[str, dict[int, float]] = {}
        for name, labels_ in rows:
            row = united.setdefault(name, {})
            row.update({c: max(row.get(c, -1), v) for c, v in labels_.items()})
        rows = list(united.items())
    if close:
        for _, row in rows:
            classes, values = target.close(np.array(list(row)), np.array(list(row.values())))
            row.clear()
            row.update(zip(classes.tolist(), values.tolist(), strict=True))
    written = as_rows(read_label_list(folder / "new.txt", num_classes=len(target)))
    assert written == rows
    assert job.counts["rows read"] == sum(map(len, drawn))
    assert job.counts["rows written"] == len(rows)
    assert job.counts["labels written"] == sum(len(row) for _, row in rows)
    assert job.counts["labels written"] == sum(job.confidences.values())
    if not merge:
        dropped = sum(job.dropped.values())
        added = job.counts["added by closing"]
        assert job.counts["labels written"] == job.counts["labels read"] - dropped + added


def test_the_published_list_closed_and_mapped_to_stamps(tencent_dir, tmp_path, capsys):
    dictionary = tencent_dir / "dictionary_and_semantic_hierarchy.txt"
    source = tencent_dir / "train_im_list_tiny.txt"
    output = tmp_path / "closed.txt"
    out = run(capsys, source, "--dictionary", dictionary, "--close", "--output", output)
    assert "276   added by closing, to 65 rows" in out
    hierarchy = Hierarchy.from_file(dictionary)
    before = read_label_list(source, num_classes=len(hierarchy))
    for row, old in zip(read_label_list(output, num_classes=len(hierarchy)), before, strict=True):
        assert row.name == old.name
        expected = hierarchy.close(old.classes, old.confidences)
        np.testing.assert_array_equal((row.classes, row.confidences), expected)
