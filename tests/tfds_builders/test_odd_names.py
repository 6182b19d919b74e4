# SPDX-License-Identifier: BSD-3-Clause
"""Names that people's files have, texts of Windows, corrections of classes: in the builder."""

import os

import pytest

from mlimages_jax.files.escaping import one_line
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.labels.image_names import decode_name, encode_name
from mlimages_jax.prepare.check.command import check
from tests.support import image_files
from tests.tfds_builders.built_set import records, write_manual_dir
from tfds_builders import ml_images
from tfds_builders.ml_images import __main__ as command

NAMES = [
    "two  blanks.jpg", " first.jpg", "last.jpg ", "at 12:30", "Screenshot 12:30:15.png",
    "tab\t.jpg", "line\nend.jpg", "caf\udce9.jpg", "e\u0301.jpg", "\u202egpj.jpg", "#1.jpg",
    "'a' \"b\".jpg", "=1+1.jpg", "a\\x20b.jpg", "\x1b[31m.jpg", "\u2028.jpg",
    "\N{GRINNING FACE}.jpg", "50%20.jpg", "x" * 250 + ".jpg",
]  # fmt: skip


@pytest.fixture
def manual_dir(tmp_path):
    return write_manual_dir(tmp_path / "manual")


def test_files_of_any_name_are_in_the_set(manual_dir, tmp_path):
    image = image_files.jpeg(image_files.quadrants())
    for name in NAMES:
        (manual_dir / "images" / name).write_bytes(image)
    lines = [f"{encode_name(name)}\t3:1\n" for name in NAMES]
    (manual_dir / "train_image_list.txt").write_text("".join(lines), encoding="utf-8")
    folder = ml_images.build(manual_dir, tmp_path / "data", num_shards=1)
    found = [os.fsencode(decode_name(record["name"])) for record in records(folder, "train")]
    assert found == [os.fsencode(name) for name in NAMES]
    check(folder, splits=("train",), label_list=manual_dir / "train_image_list.txt")


def test_what_a_list_cannot_find_is_set_aside_with_its_reason(manual_dir, tmp_path):
    os.mkfifo(manual_dir / "images" / "fifo.jpg")
    (manual_dir / "images" / "folder.jpg").mkdir()
    (manual_dir / "images" / "loop.jpg").symlink_to("loop.jpg")
    names = ["fifo.jpg", "folder.jpg", "loop.jpg", r"zero\x00.jpg", "A/RED.jpg", "y" * 300,
             "a\xa0b.jpg", "gone \u202e.jpg"]  # fmt: skip
    with (manual_dir / "train_image_list.txt").open("a", encoding="utf-8") as file:
        file.writelines(f"{name}\t3\n" for name in names)
    folder = ml_images.build(manual_dir, tmp_path / "data", max_skipped=0.9)
    lines = (folder / "skipped.tsv").read_text().splitlines()[1:]
    skipped = {line.split("\t")[1]: line.split("\t")[2:] for line in lines}
    assert sorted(skipped) == sorted(map(one_line, names))
    assert skipped["fifo.jpg"] == ["unreadable", "not a regular file"]
    assert skipped["A/RED.jpg"][0] == "missing"
    assert {reason for reason, _ in skipped.values()} == {"unreadable", "missing"}
    check(folder, splits=("train",), label_list=manual_dir / "train_image_list.txt")


def test_lists_of_windows_and_of_macs(manual_dir, tmp_path):
    image = image_files.jpeg(image_files.quadrants())
    (manual_dir / "images" / "cafe\u0301").mkdir()
    (manual_dir / "images" / "cafe\u0301" / "a b.jpg").write_bytes(image)
    rows = "\ufeffa\\red.jpg\t2\r\ncaf\u00e9\\a b.jpg\t3:0.5\r\n"
    (manual_dir / "train_image_list.txt").write_bytes(rows.encode())
    for name in ("dictionary.txt", "val_image_list.txt"):
        text = (manual_dir / name).read_text()
        (manual_dir / name).write_bytes(("\ufeff" + text).replace("\n", "\r").encode())
    (manual_dir / "unlisted.txt").write_bytes("\ufeffunknown\r\n".encode())
    folder = ml_images.build(manual_dir, tmp_path / "data")
    assert [record["labels"] for record in records(folder, "train")] == [[2], [3]]
    assert len(records(folder, "val")) == 1


@pytest.mark.parametrize("name", ["dictionary.txt", "train_image_list.txt", "unlisted.txt"])
def test_utf16_is_named(manual_dir, tmp_path, name):
    (manual_dir / name).write_bytes("unknown\n".encode("utf-16"))
    with pytest.raises(ValueError, match=rf"{name}: the file is UTF-16 text: save it as UTF-8"):
        ml_images.build(manual_dir, tmp_path / "data")


def test_corrections_are_in_closed_labels_and_in_the_dictionary(manual_dir, tmp_path, caplog):
    before = Hierarchy.from_file(manual_dir / "dictionary.txt")
    child = int((before.depth == before.depth.max()).argmax())
    parent = before.ids[before.parents[child]]
    other = next(id_ for i, id_ in enumerate(before.ids) if i not in before.paths()[child])
    corrections = tmp_path / "corrections.tsv"
    corrections.write_text(
        f"category_id\tparent_id\tinstead_of\n{before.ids[child]}\t{other}\t{parent}\n"
    )
    (manual_dir / "train_image_list.txt").write_text(f"a/red.jpg\t{child}:1\n")
    data = tmp_path / "data"
    arguments = [f"--manual_dir={manual_dir}", f"--data_dir={data}", "--name=mine"]
    with pytest.raises(SystemExit, match="give --labels=closed too"):
        command.main([*arguments, f"--corrections={corrections}"])
    caplog.set_level("INFO", logger="absl")
    command.main([*arguments, "--labels=closed", f"--corrections={corrections}"])
    folder = data / "mine/closed_320/1.0.0"
    after = Hierarchy.from_file(folder / "dictionary.txt")
    assert after.parents[child] == before.index(other)
    assert records(folder, "train")[0]["labels"] == sorted(
        after.paths()[child][after.paths()[child] >= 0]
    )
    assert "corrections: 1 classes have another parent" in caplog.text
    assert "corrections: train: " in caplog.text
    check(folder)
