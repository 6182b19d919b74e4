# SPDX-License-Identifier: BSD-3-Clause
"""Which rows a later run reuses, and which files it refuses to replace."""

import json
import os

import numpy as np
import pytest

from mlimages_jax.inference import tag_files
from mlimages_jax.inference.image_source import open_images
from mlimages_jax.inference.line_index import LineIndex
from mlimages_jax.inference.tag_files import TagFileError
from mlimages_jax.inference.tag_record import TagRecord, finished_rows

ABOUT = {"weights": "w", "top_k": 5, "checkpoint": "c/7"}
CORRUPT = "corrupt: it ends"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.jpg").write_text(name)
    return folder


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out" / "tags.jsonl"


def _record(output, about=ABOUT, **options):
    return TagRecord(output, "jsonl", about, shown=("checkpoint",), **options)


def _row(name, run, error):
    if error:
        return {"image": name, "error": error}
    tags = [{"index": 0, "id": run, "name": "dog", "score": 0.1, "path": ["dog"]}]
    return {"image": name, "tags": tags}


def _run(output, folder, run, *, errors=(), stop_after=None, about=ABOUT, **options):
    """Tags what is new; returns these names. The rows say by which run they were made."""
    source = open_images(folder)
    errors = dict(errors)
    with _record(output, about, **options) as record:
        todo, known = record.plan(source)
        names = [source.names[position] for position in todo]
        rows = [(at, _row(source.names[at], run, errors.get(source.names[at]))) for at in todo]
        record.append(rows[:stop_after])
        if stop_after is None:
            record.finish()
            rows = list(finished_rows(output))
            assert sum("error" in row for row in rows) == known + len(errors)
            assert [row["image"] for row in rows] == source.names
    return [name.removesuffix(".jpg") for name in names]


def _made(output):
    """The image of every row, and the run that made it."""
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    return [(row["image"][0], row["error"] if "error" in row else row["tags"][0]["id"])
            for row in rows]  # fmt: skip


def _files(output):
    return sorted(path.name for path in output.parent.iterdir())


def test_only_new_and_changed_images_are_tagged_again(folder, output):
    assert _run(output, folder, "1") == ["a", "b", "c"]
    assert _files(output) == ["tags.jsonl", "tags.jsonl.made.jsonl"]
    (folder / "0.jpg").write_text("new")
    (folder / "a.jpg").unlink()
    (folder / "b.jpg").write_text("longer")
    status = (folder / "c.jpg").stat()
    os.utime(folder / "c.jpg", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    (folder / "d.jpg").write_text("new")
    assert _run(output, folder, "2") == ["0", "b", "c", "d"]
    (folder / "e.jpg").write_text("new")
    assert _run(output, folder, "3") == ["e"]
    assert _made(output) == [("0", "2"), ("b", "2"), ("c", "2"), ("d", "2"), ("e", "3")]
    assert _run(output, folder, "4") == []
    assert _files(output) == ["tags.jsonl", "tags.jsonl.made.jsonl"]


@pytest.mark.parametrize("file_format", tag_files.ENDINGS)
def test_an_extended_file_is_the_file_of_one_run(folder, tmp_path, file_format):
    def write(name):
        source = open_images(folder)
        path = tmp_path / name
        with TagRecord(path, file_format, ABOUT) as record:
            todo, _ = record.plan(source)
            record.append([(at, _row(source.names[at], "1", None)) for at in todo])
            record.finish()
        return path.read_bytes()

    write("grown")
    (folder / "0.jpg").write_text("new")
    (folder / "b.jpg").unlink()
    assert write("grown") == write("whole")


def test_errors_of_the_disk_are_tried_again_and_those_of_the_file_are_not(folder, output):
    errors = {"a.jpg": CORRUPT, "b.jpg": "unreadable: EIO", "c.jpg": "missing: no"}
    _run(output, folder, "1", errors=errors)
    assert _run(output, folder, "2") == ["b", "c"]
    assert _made(output) == [("a", CORRUPT), ("b", "2"), ("c", "2")]


def test_a_stopped_run_resumes_also_when_the_folder_has_changed(folder, output):
    _run(output, folder, "1", stop_after=2)
    assert not output.exists()
    partial = output.with_name("tags.jsonl.partial.jsonl")
    with partial.open("ab") as file:
        file.write(b'{"image": "c.jp')  # killed in the middle of a line
    (folder / "b.jpg").write_text("longer")
    assert _run(output, folder, "2", stop_after=1) == ["b", "c"]
    assert _run(output, folder, "3") == ["c"]
    assert _made(output) == [("a", "1"), ("b", "2"), ("c", "3")]
    (folder / "d.jpg").write_text("new")
    _run(output, folder, "4", stop_after=1)  # everything but the file
    assert _run(output, folder, "5") == []
    assert _made(output)[-1] == ("d", "4")


def test_other_values_are_refused_with_both_ways_on(folder, output):
    _run(output, folder, "1")
    before = output.read_bytes()
    other = ABOUT | {"top_k": 3, "checkpoint": "c/8"}
    message = (
        r"already exists, made with other values: .* another --output, .* --overwrite "
        r"\(checkpoint: 'c/7' before, 'c/8' now; top_k: 5 before, 3 now\)"
    )
    with pytest.raises(TagFileError, match=message):
        _record(output, other)
    assert output.read_bytes() == before and len(_files(output)) == 2
    assert _run(output, folder, "2", about=ABOUT | {"checkpoint": "moved/7"}) == []
    assert _run(output, folder, "3", about=other, overwrite=True) == ["a", "b", "c"]
    assert {run for _, run in _made(output)} == {"3"}
    assert _run(output, folder, "4", about=other) == []
    output.rename(output.with_name("mine.jsonl"))
    assert _run(output, folder, "5") == ["a", "b", "c"], "nothing is in the way any more"


def test_rows_of_a_stopped_run_with_other_values_are_refused(folder, output):
    _run(output, folder, "1", stop_after=1)
    other = ABOUT | {"top_k": 3}
    with pytest.raises(TagFileError, match=r"partial.jsonl .* \(top_k: 5 before, 3 now\)"):
        _record(output, other)
    assert _run(output, folder, "2", about=other, overwrite=True) == ["a", "b", "c"]


def test_files_of_others_are_not_replaced(folder, output):
    output.parent.mkdir()
    output.write_text("mine")
    with pytest.raises(TagFileError, match=r"already exists, and tags.jsonl.made.jsonl, .* does"):
        _record(output)
    assert _files(output) == ["tags.jsonl"] and output.read_text() == "mine"
    _run(output, folder, "1", overwrite=True)
    output.write_text(output.read_text() + "\n")
    with pytest.raises(TagFileError, match="already exists, and was changed after it was made"):
        _record(output)


def test_a_file_that_changes_meanwhile_is_not_replaced(folder, output):
    _run(output, folder, "1")
    (folder / "d.jpg").write_text("new")
    source = open_images(folder)
    with _record(output) as record:
        ((position,), _) = record.plan(source)
        record.append([(position, _row("d.jpg", "2", None))])
        output.write_text("mine")
        with pytest.raises(TagFileError, match="was changed while images were tagged: move it"):
            record.finish()
    assert output.read_text() == "mine"
    output.unlink()
    assert _run(output, folder, "3") == []


def test_a_stop_between_the_two_renames_at_the_end(folder, output, monkeypatch):
    _run(output, folder, "1")
    before = output.read_bytes()
    (folder / "d.jpg").write_text("new")

    def write(path, file_format, rows):
        real(path, file_format, rows)
        monkeypatch.setattr(type(path), "replace", replace)

    def replace(path, target):
        if target == output:
            raise KeyboardInterrupt
        os.rename(path, target)  # noqa: PTH104

    real = tag_files.write
    monkeypatch.setattr(tag_files, "write", write)
    with pytest.raises(KeyboardInterrupt):
        _run(output, folder, "2")
    monkeypatch.undo()
    assert output.read_bytes() == before
    assert _run(output, folder, "3") == []
    assert _made(output) == [("a", "1"), ("b", "1"), ("c", "1"), ("d", "2")]


@pytest.mark.parametrize("number", [0, 2])
def test_a_damaged_record_is_named(folder, output, number):
    _run(output, folder, "1")
    made = output.with_name("tags.jsonl.made.jsonl")
    lines = made.read_bytes().splitlines(keepends=True)
    lines[number] = lines[number][:20] + b"\n"
    made.write_bytes(b"".join(lines))
    with pytest.raises(TagFileError, match=r"made.jsonl is damaged: .*--overwrite"):
        _run(output, folder, "2")
    made.unlink()
    assert _run(output, folder, "3", overwrite=True) == ["a", "b", "c"]


def test_of_lines_with_one_key_the_last_counts():
    index = LineIndex([(5, 10), (2**64 - 1, 20), (5, 30), (0, 40)])
    found = index.places(np.array([0, 1, 5, 2**64 - 1, 6], np.uint64))
    assert found.tolist() == [40, -1, 30, 20, -1]
    assert LineIndex([]).places(np.array([1], np.uint64)).tolist() == [-1]
