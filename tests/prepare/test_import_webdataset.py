# SPDX-License-Identifier: BSD-3-Clause
"""WebDataset: samples of tars become rows; nothing in a tar is trusted, or unpacked."""

import functools
import gzip
import io
import tarfile

import pytest

from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.imports.door import import_any
from mlimages_jax.prepare.imports.find_webdataset import find_webdataset
from tests.support import image_sets, imagenet_archives
from tests.support.image_sets import rows_of, write_tar
from tests.tfds_builders.built_set import records

import_lists = functools.partial(import_any, lists_only=True, val_fraction=0)
ONE, TWO, THREE = image_sets.images(3)


def aside(out) -> list[list[str]]:
    """Number and reason of each row that was set aside."""
    lines = (out / "set_aside.tsv").read_text().splitlines()[1:]
    return [line.split("\t")[1:] for line in lines]


LABELS = {
    "cls": ({"a.jpg": ONE, "a.cls": "3\n", "b.cls": "0", "b.jpg": TWO}, ["3"], ["0"]),
    "json": (
        {"a.jpg": ONE, "a.json": {"tags": ["dog", "cat"], "n": 1},
         "b.jpg": TWO, "b.json": {"tags": []}},
        ["cat", "dog"], [],
    ),
    "json before cls and txt": (
        {"a.jpg": ONE, "a.json": {"label": "dog"}, "a.cls": "1", "a.txt": "a caption",
         "b.jpg": TWO, "b.json": {"label": "cat"}, "b.cls": "2", "b.txt": "another"},
        ["dog"], ["cat"],
    ),
    "txt": ({"a.jpg": ONE, "a.txt": "dog;cat", "b.jpg": TWO, "b.txt": "cat"}, ["cat", "dog"],
            ["cat"]),
    "folders, capitals and other images": (
        {"d.1/a.JPG": ONE, "d.1/a.cls": "x", "e/b.webp": TWO, "e/b.cls": "y"}, ["x"], ["y"],
    ),
    "one-hot": (
        {"a.jpg": ONE, "a.json": {"dog": 1, "cat": 0},
         "b.jpg": TWO, "b.json": {"dog": 0, "cat": 0}},
        ["dog"], [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_samples(tmp_path, kind):
    members, *meant = LABELS[kind]
    path = write_tar(tmp_path / "a.tar", members)
    said = ("dog", "cat") if kind == "one-hot" else ()
    import_lists(path, output=tmp_path / "out", label_columns=said)
    found = rows_of(tmp_path / "out", "train")
    images = [name for name, data in members.items() if isinstance(data, bytes)]
    assert {name: sorted(labels) for name, labels in found.items()} == {
        f"a.tar/{name}": labels for name, labels in zip(images, meant, strict=True)
    }


@pytest.mark.parametrize(
    ("columns", "labels"),
    [(("cls",), ["7"]), (("txt",), ["a dog"]), (("kind",), ["pet"]), (("meta.json",), ["x", "y"]),
     (("json",), ["pet"]), (("tags.txt",), ["p", "q"])],
)  # fmt: skip
def test_columns_that_are_asked_for(tmp_path, columns, labels):
    members = {
        "a.jpg": ONE, "a.cls": "7", "a.txt": "a dog", "a.tags.txt": "p;q",
        "a.json": {"labels": ["other"], "kind": "pet"} if columns != ("json",) else {"pet": 1},
        "a.meta.json": ["x", "y"],
    }  # fmt: skip
    path = write_tar(tmp_path / "a.tar", members)
    import_lists(path, output=tmp_path / "out", label_columns=columns)
    assert rows_of(tmp_path / "out", "train") == {"a.tar/a.jpg": labels}


def test_several_images_in_a_sample_need_a_choice(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"a.jpg": ONE, "a.mask.png": TWO, "a.cls": "1"})
    with pytest.raises(
        PrepareError, match=r"jpg, mask\.png are images: choose one with --image-co"
    ):
        import_lists(path, output=tmp_path / "out")
    import_lists(path, output=tmp_path / "out", image_column="mask.png")
    assert list(rows_of(tmp_path / "out", "train")) == ["a.tar/a.mask.png"]


def test_splits_of_tars_are_kept_and_the_set_is_built_from_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i, (split, data) in enumerate([("train", ONE), ("train", TWO), ("val", THREE)]):
        name = f"my set/{split}/{split}-{i:06}.tar"
        write_tar(tmp_path / name, {"x/1.jpg": data, "x/1.cls": str(i % 2), "x/1.txt": "-"})
    before = sorted((tmp_path / "my set").rglob("*"))
    import_any(tmp_path / "my set")
    folder = tmp_path / "data/my_set/released_320/1.0.0"
    train = [(one["name"], one["image"], one["labels"]) for one in records(folder, "train")]
    assert train == [("train/train-000000.tar/x/1.jpg", ONE, [0]),
                     ("train/train-000001.tar/x/1.jpg", TWO, [1])]  # fmt: skip
    assert [one["image"] for one in records(folder, "val")] == [THREE]
    assert sorted((tmp_path / "my set").rglob("*")) == before
    assert not list(tmp_path.rglob("1.jpg"))  # nothing was unpacked


def test_captions_are_not_taken_for_classes(tmp_path):
    members = {}
    for i in range(12):
        members |= {f"{i}.jpg": ONE, f"{i}.txt": f"caption number {i}"}
    path = write_tar(tmp_path / "a.tar", members)
    with pytest.raises(PrepareError, match="look like captions: 'caption number 0'"):
        import_lists(path, output=tmp_path / "out")
    import_lists(path, output=tmp_path / "out", label_columns=("txt",))
    assert len(rows_of(tmp_path / "out", "train")) == 12


def test_bad_samples_are_set_aside(tmp_path):
    members = {
        "a.jpg": ONE, "a.json": {"label": "dog"},
        "b.jpg": TWO, "b.json": "{",
        "c.jpg": THREE,
        "d.json": {"label": "dog"},
        "e.jpg": ONE, "e.json": b"\xff{}",
        "f.jpg": ONE, "f.json": " " * (1 << 20) + "{}",
        "no key": b"", ".hidden.jpg": ONE, "folder/.DS_Store": b"",
        "g.jpg": TWO, "g.json": {"label": "cat"},
    }  # fmt: skip
    path = write_tar(tmp_path / "a.tar", members)
    import_lists(path, output=tmp_path / "out")
    assert rows_of(tmp_path / "out", "train") == {"a.tar/a.jpg": ["dog"], "a.tar/g.jpg": ["cat"]}
    numbers, reasons = zip(*aside(tmp_path / "out"), strict=True)
    assert numbers == ("2", "3", "4", "5", "6")
    for reason, start in zip(reasons, (
        "the sample 'b': json is not JSON (Expecting property name",
        'there is no label: "label" is missing',
        "the sample 'd': there is no image, only json",
        "the sample 'e': json is not UTF-8 text",
        "the sample 'f': json has 1,048,578 bytes; the limit for labels is 1,048,576",
    ), strict=True):  # fmt: skip
        assert reason.startswith(start)
    with pytest.raises(PrepareError, match="5 of 7 rows unusable"):
        import_lists(path, output=tmp_path / "out", max_skipped=0)


def test_hostile_members_are_set_aside_and_do_nothing(tmp_path):
    (tmp_path / "secret.jpg").write_bytes(THREE)
    members = {"../up.jpg": ONE, "../up.cls": b"1", "/abs.jpg": ONE, "a.jpg": ONE, "a.cls": b"1",
               "a.jpg ": TWO, "z.cls": b"2", "z.jpg": TWO}  # fmt: skip
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
        link = tarfile.TarInfo("l.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.jpg")
        tar.addfile(link)
    path = tmp_path / "set/a.tar"
    path.parent.mkdir()
    path.write_bytes(file.getvalue())
    before = sorted(tmp_path.rglob("*"))
    import_lists(path, output=tmp_path / "out")
    assert rows_of(tmp_path / "out", "train") == {"a.tar/a.jpg": ["1"], "a.tar/z.jpg": ["2"]}
    reasons = " ".join(reason for _, reason in aside(tmp_path / "out"))
    assert all(f"skipped '{one}'" in reasons for one in ("../up.jpg", "../up.cls", "/abs.jpg"))
    assert "skipped 'l.jpg' at byte" in reasons and len(aside(tmp_path / "out")) == 4
    new = {*tmp_path.rglob("*")} - {*before}
    assert {one.name for one in new} == {
        "out", "images", "dictionary.txt", "unlisted.txt", "train_image_list.txt", "set_aside.tsv",
    }  # fmt: skip


def test_sizes_that_lie_and_tars_cut_off_lose_only_the_rest(tmp_path):
    whole = imagenet_archives.tar({"a.jpg": ONE, "a.cls": b"1", "b.cls": b"1", "b.jpg": TWO})
    at = whole.index(b"b.jpg")
    lying = bytearray(whole)
    lying[at + 124 : at + 136] = b"77777777777\0"  # 8 GB
    lying[at + 148 : at + 156] = b" " * 8
    lying[at + 148 : at + 156] = b"%06o\0 " % sum(lying[at : at + 512])
    for data in (bytes(lying), whole[: at + 600]):
        (tmp_path / "a.tar").write_bytes(data)
        import_lists(tmp_path / "a.tar", output=tmp_path / "out")
        assert rows_of(tmp_path / "out", "train") == {"a.tar/a.jpg": ["1"]}
        (_, lost), (_, half) = sorted(aside(tmp_path / "out"), key=str, reverse=True)
        assert "truncated" in lost + half and "there is no image" in lost + half


def test_compressed_tars_are_refused_with_what_to_do(tmp_path):
    data = imagenet_archives.tar({"a.jpg": ONE, "a.cls": b"1"})
    (tmp_path / "a.tar").write_bytes(gzip.compress(data))
    with pytest.raises(PrepareError, match=r"a\.tar: compressed, .* with gunzip first"):
        import_lists(tmp_path / "a.tar", output=tmp_path / "out")


@pytest.mark.parametrize(
    "members",
    [{"a.jpg": ONE, "b.jpg": TWO}, {"n01440764.tar": b"-" * 600}, {"a.cls": "1"}, {}],
)
def test_other_tars_are_not_webdataset(tmp_path, members):
    path = write_tar(tmp_path / "a.tar", members)
    with pytest.raises(PrepareError, match="not recognised"):
        import_lists(path, output=tmp_path / "out")


def test_a_tar_of_something_else_is_noted(tmp_path, capsys):
    write_tar(tmp_path / "set/1.tar", {"a.jpg": ONE, "a.cls": "1"})
    write_tar(tmp_path / "set/2.tar", {"a.jpg": ONE})
    import_any(tmp_path / "set", dry_run=True)
    said = capsys.readouterr().out
    assert "Recognised WebDataset:" in said
    assert "2.tar: its first members are no images with labels of the same name" in said


def test_images_are_never_read_for_the_lists(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "a.tar", {"a.jpg": ONE, "a.cls": "1", "b.jpg": TWO, "b.cls": "2"})
    read = find_webdataset.__globals__["Archive"].read
    seen = []
    monkeypatch.setattr(
        "mlimages_jax.data.archives.Archive.read",
        lambda self, member: seen.append(member.name) or read(self, member),
    )
    import_lists(path, output=tmp_path / "out")
    assert {name.rpartition(".")[2] for name in seen} == {"cls"}
