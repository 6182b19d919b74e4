# SPDX-License-Identifier: BSD-3-Clause
import hashlib
from pathlib import PurePosixPath

import pytest

from mlimages_jax.data.images.decode import read_header
from mlimages_jax.prepare import placeholders
from mlimages_jax.prepare.storing import (
    Expected,
    StorageError,
    UnwantedFileError,
    file_name,
    store,
)
from tests.support import image_files

IMAGE = image_files.jpeg(image_files.quadrants())


def stored(folder, data, *, expected=Expected(), short_side=None):  # noqa: B008 immutable
    (folder / "unfinished").write_bytes(data)
    path = folder / "a" / "b" / "c.jpg"
    return store(folder / "unfinished", path, expected=expected, short_side=short_side), path


def test_a_good_file_moves_unchanged(tmp_path):
    result, path = stored(tmp_path, IMAGE)
    assert path.read_bytes() == IMAGE
    assert not (tmp_path / "unfinished").exists()
    assert result == (len(IMAGE), hashlib.sha256(IMAGE).digest(), 64, 32, None)
    again, _ = stored(tmp_path, image_files.grey_jpeg())  # replaces it
    assert path.read_bytes() == image_files.grey_jpeg()
    assert again.sha256 != result.sha256


def test_a_large_image_shrinks_on_arrival(tmp_path):
    result, path = stored(tmp_path, IMAGE, short_side=16)
    header = read_header(path.read_bytes())
    assert (header.width, header.height) == (result.width, result.height) == (32, 16)
    assert result.num_bytes == len(IMAGE)
    assert result.sha256 == hashlib.sha256(IMAGE).digest()
    assert result.file_sha256 == hashlib.sha256(path.read_bytes()).digest()
    kept, path = stored(tmp_path, IMAGE, short_side=32)
    assert kept.file_sha256 is None and path.read_bytes() == IMAGE


@pytest.mark.parametrize("make", image_files.GOOD.values(), ids=image_files.GOOD)
def test_every_kind_of_image_that_the_builder_takes(tmp_path, make):
    result, path = stored(tmp_path, make())
    assert (result.width, result.height) == (64, 32)
    assert path.read_bytes() == make()


@pytest.mark.parametrize("make, reason", image_files.BAD.values(), ids=image_files.BAD)
def test_files_that_are_no_images_stay_out(tmp_path, make, reason):
    with pytest.raises(UnwantedFileError) as error:
        stored(tmp_path, make())
    assert error.value.reason == reason
    assert not (tmp_path / "a").exists()


def test_promises_are_checked(tmp_path):
    md5 = hashlib.md5(IMAGE).digest()
    stored(tmp_path, IMAGE, expected=Expected(len(IMAGE), md5))
    for expected, reason in [
        (Expected(len(IMAGE) + 1, md5), "wrong_size"),
        (Expected(len(IMAGE), bytes(16)), "wrong_md5"),
    ]:
        with pytest.raises(UnwantedFileError) as error:
            stored(tmp_path, IMAGE, expected=expected)
        assert error.value.reason == reason


def test_a_known_placeholder_stays_out(tmp_path, monkeypatch):
    assert all(len(bytes.fromhex(md5)) == 16 for md5 in placeholders.KNOWN)
    md5 = hashlib.md5(IMAGE).hexdigest()
    monkeypatch.setitem(placeholders.KNOWN, md5, "a drawing for the test")
    with pytest.raises(UnwantedFileError, match="a drawing for the test") as error:
        stored(tmp_path, IMAGE)
    assert error.value.reason == "placeholder"
    stored(tmp_path, IMAGE, expected=Expected(md5=bytes.fromhex(md5)))  # it is what was promised


def test_what_cannot_be_written_says_what_to_do(tmp_path):
    (tmp_path / "a").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match=r"c\.jpg: Not a directory\. Free some space or"):
        stored(tmp_path, IMAGE)


@pytest.mark.parametrize(
    ("url", "stem"),
    [
        ("https://farm2.staticflickr.com/2034/1557324960_1ae893fed8_o.jpg",
         "1557324960_1ae893fed8_o"),
        ("http://a.org/", "image"),
        ("http://a.org/x/../../../../etc/passwd", "passwd"),
        ("http://a.org/..%2f..%2fetc%2fcron.d", "cron"),
        ("http://a.org/%2e%2e", "image"),
        ("http://a.org/.hidden.jpg", "hidden"),
        ("http://a.org/my%20photo%00.JPG?size=large", "my_photo_"),
        ("http://a.org/" + "x" * 500 + ".jpg", "x" * 80),
        ("http://a.org/\u00fc\u00fc.jpg", "_"),
        ("http://a.org/con\\..\\x.png", "con_.._x"),
    ],
)  # fmt: skip
def test_names_stay_in_their_folder(url, stem):
    path = PurePosixPath(file_name(url))
    assert len(path.parts) == 3 and ".." not in path.parts
    assert path.name.rpartition("-")[0] == stem
    assert path.suffix in (".jpg", ".png") and not path.name.startswith(".")
    assert len(path.name) < 120


def test_names_do_not_collide():
    urls = [f"http://{host}/{folder}/1.jpg{query}" for host in ("a", "b") for folder in range(50)
            for query in ("", "?x=1", "#2")]  # fmt: skip
    assert len({file_name(url) for url in urls}) == len(urls)
    assert len({file_name(url).split("/")[0] for url in urls}) == 2
    assert file_name("http://a/1.jpg") == file_name("http://a/1.jpg")
