# SPDX-License-Identifier: BSD-3-Clause
import errno

import numpy as np
import pytest

from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.lists import LabelListWriter, LabelRow
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports.manual_dir import link_images, write_manual_dir


def _classes(*ids: str) -> Hierarchy:
    return Hierarchy(ids, ids, np.full(len(ids), -1, np.int32))


def _row(name: str, class_: int) -> LabelRow:
    return LabelRow(name, np.int32([class_]), np.float32([1]))


def _write(folder, ids, *splits, missing_labels="absent"):
    with write_manual_dir(folder, _classes(*ids), missing_labels=missing_labels) as writer:
        for split in splits:
            writer.write(split, [_row("a.jpg", 0)])
            writer.write(split, [_row("b.jpg", len(ids) - 1)])
    return writer


def _contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_the_files_of_a_folder(tmp_path):
    writer = _write(tmp_path / "new" / "out", ["x", "y"], "train", "val", missing_labels="unknown")
    contents = _contents(tmp_path / "new" / "out")
    assert contents["train_image_list.txt"] == "a.jpg\t0:1\nb.jpg\t1:1\n"
    assert contents["unlisted.txt"] == "unknown\n"
    assert contents.keys() == {
        "dictionary.txt", "unlisted.txt", "train_image_list.txt", "val_image_list.txt",
    }  # fmt: skip
    assert writer.images == {"train": 2, "val": 2}


def test_where_something_is_raised_all_stays_as_it_was(tmp_path):
    _write(tmp_path, ["x", "y"], "train")
    before = _contents(tmp_path)

    def rows():
        yield _row("c.jpg", 0)
        raise RuntimeError

    with (
        pytest.raises(RuntimeError),
        write_manual_dir(tmp_path, _classes("z"), missing_labels="unknown") as writer,
    ):
        writer.write("val", [_row("a.jpg", 0)])
        writer.write("train", rows())
    assert _contents(tmp_path) == before


def test_a_new_import_of_the_same_splits_replaces_the_old_one(tmp_path):
    _write(tmp_path, ["x", "y"], "train", "val")
    _write(tmp_path, ["x", "y", "z"], "val", "train", missing_labels="unknown")
    contents = _contents(tmp_path)
    assert contents["val_image_list.txt"] == "a.jpg\t0:1\nb.jpg\t2:1\n"
    assert "z" in contents["dictionary.txt"]
    assert contents["unlisted.txt"] == "unknown\n"


@pytest.mark.parametrize(
    ("ids", "missing_labels", "file"),
    [(["x", "z"], "absent", "dictionary.txt"), (["x", "y"], "unknown", "unlisted.txt")],
)
@pytest.mark.parametrize("with_word", [True, False])
def test_a_list_that_stays_keeps_its_dictionary_and_word(
    tmp_path, ids, missing_labels, file, with_word
):
    _write(tmp_path, ["x", "y"], "train")
    if not with_word:  # made by hand: then absent is meant
        (tmp_path / "unlisted.txt").unlink()
    before = _contents(tmp_path)
    with pytest.raises(PrepareError, match=rf"{file}: differs .* lists of train in the same"):
        _write(tmp_path, ids, "val", missing_labels=missing_labels)
    assert _contents(tmp_path) == before
    _write(tmp_path, ["x", "y"], "val")
    assert len(_contents(tmp_path)) == 4


def test_an_import_without_images_is_refused(tmp_path):
    with (
        pytest.raises(PrepareError, match="no images"),
        write_manual_dir(tmp_path, _classes("x"), missing_labels="absent") as writer,
    ):
        writer.write("train", [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("split", ["all", "", "../train", "1st", "val set"])
def test_impossible_splits_are_refused(tmp_path, split):
    with pytest.raises(PrepareError, match="cannot be the name of a split"):
        _write(tmp_path, ["x"], split)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_finished_lists(tmp_path, monkeypatch):
    """It may show only when the last rows leave the buffer."""
    _write(tmp_path, ["x", "y"], "train", "val")
    before = _contents(tmp_path)

    def full(self):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LabelListWriter, "flush", full)
    with pytest.raises(PrepareError, match="No space left"):
        _write(tmp_path, ["x", "y", "z"], "train", "val")
    assert _contents(tmp_path) == before


def test_the_same_dictionary_again_takes_no_list_away(tmp_path, monkeypatch):
    _write(tmp_path, ["x", "y"], "train")
    removed = []
    unlink = type(tmp_path).unlink
    monkeypatch.setattr(
        type(tmp_path), "unlink", lambda self, **kw: (removed.append(self.name), unlink(self, **kw))
    )
    _write(tmp_path, ["x", "y"], "train")
    assert not [name for name in removed if name.endswith("list.txt")]


def test_at_no_moment_does_a_list_stand_beside_another_dictionary(tmp_path, monkeypatch):
    """A dying process between any two changes of the folder."""
    _write(tmp_path, ["x", "y"], "train", "val")
    states = []

    def spy(kind, name):
        original = getattr(kind, name)

        def watched(self, *args, **kwargs):
            result = original(self, *args, **kwargs)
            contents = _contents(tmp_path)
            lists = {text for name, text in contents.items() if name.endswith("list.txt")}
            states.append((lists, "z" in contents.get("dictionary.txt", "z")))
            return result

        monkeypatch.setattr(kind, name, watched)

    kind = type(tmp_path)
    spy(kind, "replace")
    spy(kind, "unlink")
    _write(tmp_path, ["x", "y", "z"], "train", "val")
    assert len(states) >= 6
    for lists, is_new in states:
        assert lists <= {f"a.jpg\t0:1\nb.jpg\t{2 if is_new else 1}:1\n"}


@pytest.mark.parametrize("what", ["list", "dictionary"])
def test_a_full_disk_is_an_error_that_names_the_folder(tmp_path, monkeypatch, what):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    target = (LabelListWriter, "write") if what == "list" else (Hierarchy, "to_file")
    monkeypatch.setattr(*target, full)
    with pytest.raises(PrepareError, match=r"out: No space left.*another --output"):
        _write(tmp_path / "out", ["x", "y"], "train")


def _import(folder, images, *splits):
    with write_manual_dir(folder, _classes("x"), missing_labels="absent", images=images) as writer:
        for split in splits:
            writer.write(split, [_row("a.jpg", 0)])
    return link_images(folder, images)


def test_another_import_leads_to_its_own_images(tmp_path):
    one, other, out = (tmp_path / name for name in ("one", "other", "out"))
    one.mkdir()
    other.mkdir()
    assert _import(out, one, "train", "val") and (out / "images").resolve() == one
    assert _import(out, one, "train") and (out / "images").resolve() == one
    assert _import(out, other, "train", "val") and (out / "images").resolve() == other
    other.rmdir()  # a link to nothing is no folder of somebody's
    assert _import(out, one, "train", "val") and (out / "images").resolve() == one


def test_lists_that_stay_keep_their_images(tmp_path):
    one, other, out = (tmp_path / name for name in ("one", "other", "out"))
    one.mkdir()
    other.mkdir()
    _import(out, one, "train")
    before = _contents_of_lists(out)
    with pytest.raises(PrepareError, match=r"leads to .*one, to the images of train.*other"):
        _import(out, other, "val")
    assert _contents_of_lists(out) == before
    assert _import(out, one, "val")


def _contents_of_lists(folder):
    return {path.name: path.read_text() for path in folder.glob("*.txt")}


def test_a_folder_of_images_is_never_replaced(tmp_path):
    images, out = tmp_path / "mine", tmp_path / "out"
    images.mkdir()
    (out / "images").mkdir(parents=True)
    assert not _import(out, images, "train")
    assert not (out / "images").is_symlink()
