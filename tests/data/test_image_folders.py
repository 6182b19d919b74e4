# SPDX-License-Identifier: BSD-3-Clause
import collections
import errno
import os
import random
import socket
import unicodedata

import pytest

from mlimages_jax.data import image_folders
from mlimages_jax.data.image_folders import ImageFolder, describe_ignored, list_images
from mlimages_jax.inference import user_images
from mlimages_jax.labels.image_names import decode_name, encode_name
from tests.support import fuzzing
from tests.support.image_files import jpeg, noise

NFC, NFD = "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}"


def _write(folder, *names, data=b"x"):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def test_images_of_all_folders_in_order_and_the_rest_by_kind(tmp_path):
    _write(tmp_path, "b/2.JPG", "b/1.png", "a.jpeg", "c/d/e.webp", "x.tiff")
    _write(tmp_path, "notes.TXT", "b/1.xml", "b/2.xml", "b/labels.json", "LICENSE", "b/a.tar.gz")
    _write(tmp_path, ".DS_Store", "._a.jpeg", ".hidden/z.jpg", "b/Thumbs.db", "b/desktop.ini")
    _write(tmp_path, "__MACOSX/._a.jpg", "@eaDir/a.jpg")
    found = list_images(tmp_path)
    assert found.images == ["a.jpeg", "b/1.png", "b/2.JPG", "c/d/e.webp", "x.tiff"]
    assert found.ignored == {
        ".txt": 1, ".xml": 2, ".json": 1, "without extension": 1, ".gz": 1, "hidden": 3,
        "Thumbs.db": 1, "desktop.ini": 1, "__MACOSX": 1, "@eaDir": 1,
    }  # fmt: skip


def test_files_without_an_extension_are_looked_into(tmp_path):
    image = jpeg(noise(8, 8))
    _write(tmp_path, "photo", "download.jpg_large", "n01440764_1.JPEG.1", data=image)
    _write(tmp_path, "README", "Makefile.am", "a.part", "b.txt", data=b"not an image")
    _write(tmp_path, "c.crdownload", data=image)  # half of one, by its name
    _write(tmp_path, "nothing", data=b"")
    found = list_images(tmp_path)
    assert found.images == ["download.jpg_large", "n01440764_1.JPEG.1", "photo"]
    assert found.ignored == {
        "without extension": 2, ".am": 1, ".part": 1, ".txt": 1, ".crdownload": 1
    }  # fmt: skip
    assert list_images(tmp_path, by_content=False).images == []


def test_what_is_no_file_is_never_opened(tmp_path):
    _write(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "fifo.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket.jpg"))  # a path of 108 bytes at most
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    (tmp_path / "broken.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "self.jpg").symlink_to("self.jpg")
    found = list_images(tmp_path)
    assert found.images == ["a.jpg"]
    assert found.ignored == {
        "FIFO": 1, "socket": 1, "device": 1, "broken link": 1, "link loop": 1
    }  # fmt: skip
    for name in ("fifo.jpg", "device.jpg", "socket.jpg"):
        with pytest.raises(OSError, match="not a regular file"):
            ImageFolder(str(tmp_path)).read(name)
        with pytest.raises(OSError, match="not a regular file"):
            user_images.pixels(tmp_path / name)


def test_links_are_followed_but_not_in_circles(tmp_path):
    _write(tmp_path, "images/a.jpg", "elsewhere/b.jpg")
    (tmp_path / "images" / "more").symlink_to("../elsewhere")
    (tmp_path / "images" / "c.jpg").symlink_to("a.jpg")
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "images")
    (tmp_path / "images" / "self").symlink_to(".")
    found = list_images(tmp_path / "images")
    assert found.images == ["a.jpg", "c.jpg", "more/b.jpg"]
    assert found.ignored == {"link loop": 2}
    found = list_images(tmp_path / "images", follow_links=False)
    assert found == (["a.jpg", "c.jpg"], {"link to a folder": 2})


def test_a_folder_named_like_an_image_is_a_folder(tmp_path):
    _write(tmp_path, "a.jpg/b.jpg")
    assert list_images(tmp_path).images == ["a.jpg/b.jpg"]
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        ImageFolder(str(tmp_path)).read("a.jpg")


def test_folders_that_cannot_be_read_are_counted(tmp_path, monkeypatch):
    _write(tmp_path, "a.jpg", "locked/b.jpg")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(image_folders.os, "scandir", refuse)
    assert list_images(tmp_path) == (["a.jpg"], {"unreadable folder": 1})
    with pytest.raises(PermissionError):
        list_images(tmp_path / "locked")


def test_the_line_about_what_was_ignored(tmp_path):
    assert describe_ignored(collections.Counter()) == ""
    assert describe_ignored(collections.Counter({".xml": 1})) == (
        "ignored 1 other file or folder (1 .xml)"
    )
    line = describe_ignored(collections.Counter({".xml": 1200, "hidden": 3, ".a\x1b[2J": 1}))
    assert line == r"ignored 1,204 other files and folders (1,200 .xml, 3 hidden, 1 .a\x1b[2J)"
    many = collections.Counter({f".{number}": 1 for number in range(40)})
    assert describe_ignored(many).endswith(", ...)")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a b.jpg", "a b.jpg"),
        ("a\tb.jpg", r"a\x09b.jpg"),
        ("a\\x09b.jpg", r"a\x09b.jpg"),  # of a list that knew no escapes
        ("images/n/a.jpg", r"images\n\a.jpg"),
        ("a\\b.jpg", r"a\b.jpg"),
        (f"{NFC}/a.jpg", f"{NFD}/a.jpg"),
        (f"{NFD}/{NFC}.jpg", f"{NFC}\\{NFC}.jpg"),
        (f"{NFD} \t.jpg", f"{NFC} \\x09.jpg"),
    ],
)
def test_a_name_finds_its_file(tmp_path, file, name):
    _write(tmp_path, file, data=file.encode())
    assert ImageFolder(str(tmp_path)).read(name) == file.encode()


def test_the_exact_file_goes_before_others(tmp_path):
    _write(tmp_path, f"{NFC}.jpg", data=b"composed")
    _write(tmp_path, f"{NFD}.jpg", data=b"decomposed")
    _write(tmp_path, "a\tb.jpg", data=b"tab")
    _write(tmp_path, "a\\x09b.jpg", data=b"letters")
    folder = ImageFolder(str(tmp_path))
    assert folder.read(f"{NFC}.jpg") == b"composed"
    assert folder.read(f"{NFD}.jpg") == b"decomposed"
    assert folder.read(encode_name("a\tb.jpg")) == b"tab"
    assert folder.read(encode_name("a\\x09b.jpg")) == b"letters"


def test_two_files_that_are_the_same_are_both_named(tmp_path):
    mixed = unicodedata.normalize("NFC", "ǖ") + unicodedata.normalize("NFD", "ǖ")
    forms = [unicodedata.normalize(form, "ǖǖ") for form in ("NFC", "NFD")]
    _write(tmp_path, *(f"{form}.jpg" for form in forms))
    with pytest.raises(OSError, match="could be") as caught:
        ImageFolder(str(tmp_path)).read(f"{mixed}.jpg")
    assert all(ascii(f"{form}.jpg") in str(caught.value) for form in forms)


def test_upper_and_lower_case_is_a_question(tmp_path):
    _write(tmp_path, "n/Cat.JPG")
    with pytest.raises(FileNotFoundError, match=r"is it 'Cat\.JPG'\?"):
        ImageFolder(str(tmp_path)).read("n/cat.jpg")
    with pytest.raises(FileNotFoundError, match=r"no such file$"):
        ImageFolder(str(tmp_path)).read("n/dog.jpg")
    with pytest.raises(FileNotFoundError, match=r"no such file$"):
        ImageFolder(str(tmp_path)).read("nowhere/dog.jpg")


@pytest.mark.parametrize("name", ["a\0b.jpg", r"a\x00b.jpg", "\ud800.jpg", "a.jpg/b.jpg"])
def test_names_that_no_file_has(tmp_path, name):
    _write(tmp_path, "a.jpg")
    with pytest.raises(OSError, match=r"no such file|no file can have"):
        ImageFolder(str(tmp_path)).read(name)


def test_a_very_long_name_is_an_error_of_its_own(tmp_path):
    with pytest.raises(OSError, match="too long"):
        ImageFolder(str(tmp_path)).read("x" * 5_000 + ".jpg")


def test_a_file_that_came_later_is_found(tmp_path):
    folder = ImageFolder(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        folder.read(f"{NFC}.jpg")
    _write(tmp_path, f"{NFD}.jpg")
    assert folder.read(f"{NFC}.jpg") == b"x"


_PIECES = (
    "a", "b", " ", "\t", "\n", "\udce9", "\\", "\\x20", "12:3", "=", "\x1b", NFC, NFD, "\u202e",
    "'", "#", "%20",
)  # fmt: skip


def _check_random_tree(folder, draw):
    """Makes a tree of odd entries and looks whether every image is found under its name."""
    folders, images, others = [folder], {}, 0
    for _ in range(draw.randrange(1, 12)):
        name = "".join(draw.choices(_PIECES, k=draw.randrange(1, 5)))
        path = draw.choice(folders) / name
        file, number = path.with_name(f"{name}.jpg"), len(images)
        kind = draw.choice(["image", "image", "folder", "text", "fifo", "broken", "loop"])
        endings = {"folder": "", "text": ".jpg.txt"}
        made = path.with_name(name + endings.get(kind, ".jpg"))
        if made.exists() or made.is_symlink():
            continue  # drawn before
        if kind == "folder":
            path.mkdir()
            folders.append(path)
        elif kind == "image":
            file.write_bytes(b"%d" % number)
            images[str(file.relative_to(folder))] = b"%d" % number
        elif kind == "fifo":
            os.mkfifo(file)
        elif kind == "text":
            made.touch(exist_ok=False)
        else:
            file.symlink_to("." if kind == "loop" else "nowhere")
        others += kind not in ("image", "folder")
    found = list_images(folder)
    assert sorted(found.images) == sorted(images)
    assert found.ignored.total() == others
    finder = ImageFolder(str(folder))
    for path in found.images:
        name = encode_name(path)
        assert decode_name(name) == path
        assert finder.read(name) == images[path]
    assert describe_ignored(found.ignored).isprintable()


@pytest.mark.parametrize("seed", range(100))
def test_random_trees(tmp_path, seed):
    _check_random_tree(tmp_path, random.Random(seed))


@pytest.mark.slow
@pytest.mark.parametrize("part", fuzzing.PARTS)
def test_ten_thousand_random_trees(tmp_path, part):
    for seed in range(1000 * part, 1000 * part + 1000):
        (folder := tmp_path / str(seed)).mkdir()
        _check_random_tree(folder, random.Random(seed))


@pytest.mark.parametrize("then", [b"", b"before", b"before and more"])
def test_a_file_is_read_to_its_end_however_long_it_was(tmp_path, monkeypatch, then):
    path = tmp_path / "file"
    path.write_bytes(b"before!")
    status = path.stat()
    path.write_bytes(then)
    with monkeypatch.context() as patch:
        patch.setattr(image_folders.os, "stat", lambda path: status)
        read = image_folders.read_regular(str(path))
    assert read == then


def test_a_folder_that_cannot_be_opened_now_is_not_left_out(tmp_path, monkeypatch):
    """Too many files were open: its images were missing, and nothing said so."""
    _write(tmp_path, "a.jpg", "b/c.jpg", f"{NFC}.jpg")

    def full(*_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: scan(path) if path == str(tmp_path) else full())
    with pytest.raises(OSError, match="Too many open files"):
        list_images(tmp_path)
    image_folders._names_at.cache_clear()
    monkeypatch.setattr(os, "listdir", full)
    with pytest.raises(OSError, match="Too many open files"):
        ImageFolder(tmp_path).read(f"{NFD}.jpg")
