# SPDX-License-Identifier: BSD-3-Clause
"""Folders by tag: what is made, replaced and removed, and what is never touched."""

import os
import shutil

import numpy as np
import pytest

from mlimages_jax.inference.by_tag import LIST, ByTag, folder_names
from mlimages_jax.inference.image_source import ImageFiles
from mlimages_jax.labels.hierarchy import Hierarchy

NAMES = ["animal", "dog", "car"]


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    for name in ("a.jpg", "sub/b.jpg"):
        (tmp_path / "photos" / name).write_text(name)
    return tmp_path / "photos"


@pytest.fixture
def by_tag(tmp_path):
    return ByTag(tmp_path / "by_tag", NAMES)


def _update(by_tag, photos, tags, *, changed=None):
    """Tags are names by image; None stands for an error."""
    source = ImageFiles(photos, list(tags))
    rows = [
        {"image": name, "error": "corrupt"} if found is None else
        {"image": name, "tags": [{"index": NAMES.index(tag)} for tag in found]}
        for name, found in tags.items()
    ]  # fmt: skip
    by_tag.update(source, rows, np.ones(len(rows), bool) if changed is None else changed)
    return by_tag.placed, by_tag.removed, len(by_tag.left_alone)


def _files(by_tag):
    folder = by_tag._folder
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.name != LIST and not path.is_dir()
    )


def test_images_are_linked_by_tag_and_follow_their_tags(by_tag, photos, tmp_path):
    tags = {"a.jpg": ["animal", "dog"], "sub/b.jpg": ["car"]}
    assert _update(by_tag, photos, tags) == (3, 0, 0)
    assert _files(by_tag) == ["animal/a.jpg", "car/sub/b.jpg", "dog/a.jpg"]
    assert (tmp_path / "by_tag/dog/a.jpg").samefile(photos / "a.jpg")
    assert _update(by_tag, photos, tags) == (0, 0, 0)
    assert _update(by_tag, photos, {"a.jpg": ["animal"], "sub/b.jpg": None}) == (0, 1, 0)
    assert _files(by_tag) == ["animal/a.jpg", "car/sub/b.jpg"]
    assert _update(by_tag, photos, {"a.jpg": ["car"], "sub/b.jpg": []}) == (1, 2, 0)
    assert _files(by_tag) == ["car/a.jpg"]
    assert sorted(path.name for path in (tmp_path / "by_tag").iterdir()) == [LIST, "car"]


def test_a_new_version_of_an_image_replaces_the_old_one(by_tag, photos, tmp_path):
    _update(by_tag, photos, {"a.jpg": ["dog"]})
    (photos / "new").write_text("version 2")
    (photos / "new").replace(photos / "a.jpg")
    assert _update(by_tag, photos, {"a.jpg": ["dog"]}) == (1, 0, 0)
    (photos / "a.jpg").write_text("edited in place")
    assert _update(by_tag, photos, {"a.jpg": ["dog"]}) == (0, 0, 0)
    assert (tmp_path / "by_tag/dog/a.jpg").samefile(photos / "a.jpg")
    (tmp_path / "by_tag/dog/a.jpg").unlink()
    assert _update(by_tag, photos, {"a.jpg": ["dog"]}, changed=np.array([False])) == (0, 0, 0)
    assert _update(by_tag, photos, {"a.jpg": ["dog"]}) == (1, 0, 0)


def test_copies_where_links_are_impossible(by_tag, photos, tmp_path, monkeypatch):
    def link(*_, **__):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", link)
    _update(by_tag, photos, {"a.jpg": ["dog"], "sub/b.jpg": ["dog"]})
    copy = tmp_path / "by_tag/dog/a.jpg"
    assert copy.read_text() == "a.jpg" and not copy.samefile(photos / "a.jpg")
    assert _update(by_tag, photos, {"a.jpg": ["dog"], "sub/b.jpg": ["dog"]}) == (0, 0, 0)
    (tmp_path / "by_tag/dog/sub/b.jpg").write_text("edited by its user")
    assert _update(by_tag, photos, {"a.jpg": [], "sub/b.jpg": []}) == (0, 1, 1)
    assert _files(by_tag) == ["dog/sub/b.jpg"]


def test_files_of_others_are_never_replaced_or_removed(by_tag, photos, tmp_path):
    (tmp_path / "by_tag/dog").mkdir(parents=True)
    (tmp_path / "by_tag/dog/a.jpg").write_text("mine")
    (tmp_path / "by_tag/car").write_text("a file in the place of a folder")
    assert _update(by_tag, photos, {"a.jpg": ["dog", "car"]}) == (0, 0, 2)
    assert "dog/a.jpg: another file is there" in by_tag.left_alone
    _update(by_tag, photos, {"a.jpg": []})
    assert (tmp_path / "by_tag/dog/a.jpg").read_text() == "mine"
    _update(by_tag, photos, {"sub/b.jpg": ["animal"]})
    (tmp_path / "by_tag/animal/sub/b.jpg").unlink()
    (tmp_path / "by_tag/animal/sub/b.jpg").write_text("mine too")
    assert _update(by_tag, photos, {"sub/b.jpg": []}) == (0, 0, 1)
    assert (tmp_path / "by_tag/animal/sub/b.jpg").read_text() == "mine too"


def test_nothing_is_made_or_removed_outside(by_tag, photos, tmp_path):
    (photos.parent / "up.jpg").write_text("up")
    assert _update(by_tag, photos, {"../up.jpg": ["dog"]}) == (0, 0, 1)
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "by_tag" / "dog").symlink_to(outside)
    assert _update(by_tag, photos, {"a.jpg": ["dog"]}) == (0, 0, 1)
    assert list(outside.iterdir()) == []
    (tmp_path / "by_tag" / "dog").unlink()
    _update(by_tag, photos, {"a.jpg": ["dog"]})
    shutil.move(tmp_path / "by_tag" / "dog" / "a.jpg", outside)
    (tmp_path / "by_tag" / "dog").rmdir()
    (tmp_path / "by_tag" / "dog").symlink_to(outside)
    assert _update(by_tag, photos, {"a.jpg": []}) == (0, 0, 1)
    assert (outside / "a.jpg").exists()
    assert _update(by_tag, photos, {str(photos / "sub/b.jpg"): ["car"]}) == (1, 0, 0)
    (path,) = (tmp_path / "by_tag" / "car").rglob("b.jpg")
    assert path.as_posix().endswith("photos/sub/b.jpg")


def test_images_that_are_gone_lose_their_links_but_not_their_last_copy(by_tag, photos, tmp_path):
    tags = {"a.jpg": ["dog", "animal"], "sub/b.jpg": ["car"]}
    _update(by_tag, photos, tags)
    (photos / "a.jpg").rename(tmp_path / "elsewhere.jpg")
    (photos / "sub/b.jpg").unlink()
    (photos / "c.jpg").write_text("c")
    assert _update(by_tag, photos, {"c.jpg": []}) == (0, 2, 0)
    assert _files(by_tag) == ["car/sub/b.jpg"]
    assert _update(by_tag, photos, {"c.jpg": []}) == (0, 0, 0)


def test_images_of_two_folders_share_it(by_tag, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "others")
    _update(by_tag, photos, {"a.jpg": ["dog"]})
    assert _update(by_tag, tmp_path / "others", {"a.jpg": ["dog"], "sub/b.jpg": ["dog"]}) == (
        1,
        0,
        1,
    )
    assert _update(by_tag, photos, {"a.jpg": []}) == (0, 1, 0)
    assert _files(by_tag) == ["dog/sub/b.jpg"]


def test_what_a_killed_run_made_is_known(by_tag, photos, monkeypatch):
    def place(*_):
        real(*_)
        raise KeyboardInterrupt

    real = ByTag._place
    monkeypatch.setattr(ByTag, "_place", place)
    with pytest.raises(KeyboardInterrupt):
        _update(by_tag, photos, {"a.jpg": ["dog", "car"]})
    monkeypatch.undo()
    with (by_tag._folder / LIST).open("ab") as file:
        file.write(b'{"image": "cut')
    assert _files(by_tag) == ["dog/a.jpg"]
    assert _update(by_tag, photos, {"a.jpg": ["car"]}) == (1, 1, 0)
    assert _files(by_tag) == ["car/a.jpg"]


def test_names_of_folders_are_safe_and_differ():
    names = (
        "crane, bird", "Crane, machine", "../up", "?", "a/b:c\u202e", "..", "crane (n0)", "é" * 99,
    )  # fmt: skip
    ids = tuple(f"n{number}" for number in range(len(names)))
    found = folder_names(Hierarchy(ids, names, np.full(len(names), -1)))
    assert found[0] != "crane" and found[1] == "Crane (n1)"
    assert found[2:5] == ["_up", "_ (n3)", "a_b_c_"]
    assert len({name.casefold() for name in found}) == len(names)
    assert all("/" not in name and not name.startswith(".") for name in found)
    assert max(len(name.encode()) for name in found) < 255
