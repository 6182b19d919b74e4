# SPDX-License-Identifier: BSD-3-Clause
import io
import os

import pytest
from PIL import Image

from mlimages_jax.inference import thumbnails
from mlimages_jax.inference.image_source import open_images
from mlimages_jax.inference.thumbnails import Thumbnails
from tests.support import image_files, user_folder


@pytest.fixture
def photos(tmp_path):
    user_folder.write_folder(tmp_path / "photos")
    return tmp_path / "photos"


def test_one_for_each_image_that_can_be_read(photos, tmp_path):
    made = Thumbnails(tmp_path / "small").update(open_images(photos))
    found = dict(zip(user_folder.NAMES, made, strict=True))
    assert {name for name, path in found.items() if not path} == set(user_folder.ERRORS)
    with Image.open(tmp_path / "small" / found["upright.jpg"]) as image:
        assert image.size == (image_files.HEIGHT, image_files.WIDTH), "it is turned upright"
        assert not image.getexif()


@pytest.mark.parametrize(
    ("size", "shown"), [((1000, 500), (256, 128)), ((3, 65_000), (1, 256)), ((8, 9), (8, 9))]
)
def test_the_longer_side_has_a_limit(tmp_path, size, shown):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", size, (9, 99, 199)).save(tmp_path / "photos" / "a.png")
    (made,) = Thumbnails(tmp_path / "small").update(open_images(tmp_path / "photos"))
    with Image.open(tmp_path / "small" / made) as image:
        assert image.size == shown


def test_only_what_is_new_is_made_and_what_is_gone_is_removed(photos, tmp_path, monkeypatch):
    small = Thumbnails(tmp_path / "small")
    before = small.update(open_images(photos))
    read = []
    decode = thumbnails.decode
    monkeypatch.setattr(
        thumbnails, "decode", lambda data, **rest: read.append(len(data)) or decode(data, **rest)
    )
    assert small.update(open_images(photos)) == before
    assert len(read) == len(user_folder.ERRORS)  # they may have been mended
    (tmp_path / "small" / before[0][:2] / "notes.jpg").write_bytes(b"of somebody else")
    (photos / "IMG_1.JPG").unlink()
    file = io.BytesIO()
    Image.new("RGB", (5, 5)).save(file, "PNG")
    (photos / "holiday/beach photo.png").write_bytes(file.getvalue())
    read.clear()
    after = small.update(open_images(photos))
    assert len(after) == len(before) - 1 and len(read) == 1 + len(user_folder.ERRORS)
    there = {
        os.path.relpath(path, tmp_path / "small") for path in (tmp_path / "small").rglob("*.jpg")
    }
    assert there == {*filter(None, after), f"{before[0][:2]}/notes.jpg"}


def test_a_list_may_name_an_image_twice(photos, tmp_path):
    (tmp_path / "list.txt").write_text("photos/print.jpeg\n" * 20)
    made = Thumbnails(tmp_path / "small").update(open_images(tmp_path / "list.txt"))
    assert len(made) == 20 and len(set(made)) == 1
    assert len(list((tmp_path / "small").rglob("*"))) == 2
