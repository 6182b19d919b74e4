# SPDX-License-Identifier: BSD-3-Clause
"""Parquet and Arrow with images in them: every image arrives with its labels, or is named."""

import errno
import functools
import json
import os
import tarfile
import threading
from unittest import mock

import pyarrow
import pyarrow.parquet
import pytest

from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare import __main__ as prepare
from mlimages_jax.prepare.imports import image_columns
from mlimages_jax.prepare.imports.arrow_files import ArrowFile
from mlimages_jax.prepare.imports.door import import_any
from mlimages_jax.prepare.imports.table import import_table
from tests.support import image_files, image_sets, reading_threads
from tests.support.image_sets import CLASS_LABEL, FEATURES, NAMES, rows_of, table
from tests.tfds_builders.built_set import records

import_lists = functools.partial(import_any, lists_only=True)


def contents(out, split: str) -> list[tuple[bytes, list[str]]]:
    """Bytes and labels of the images of a split, in the order of its list."""
    found = []
    for name, labels in rows_of(out, split).items():
        tar, _, member = name.partition(".tar/")
        with tarfile.open(out / f"images/{tar}.tar") as archive:
            found.append((archive.extractfile(member).read(), labels))
    return found


SPLITS = {"train": (5, 0), "validation": (2, 10), "test": (2, 20)}  # images, number of the first


def part(split: str) -> pyarrow.Table:
    count, first = SPLITS[split]
    return table(image_sets.images(count, first=first), label=[i % 3 for i in range(count)])


def meant(split: str) -> list[tuple[bytes, list[str]]]:
    count, first = SPLITS[split]
    names = [[NAMES[i % 3]] for i in range(count)]
    return list(zip(image_sets.images(count, first=first), names, strict=True))


def saved(folder, *_):
    for split in SPLITS:
        content = part(split)
        parts = [content.slice(0, 3), content.slice(3)] if split == "train" else [content]
        image_sets.write_saved(folder / split, parts)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(SPLITS)}))
    # What `map` leaves beside a set is not part of it.
    image_sets.write_arrow(folder / "train/cache-0123.arrow", part("train"))


def on_the_hub(folder):
    image_sets.write_parquet(
        folder / "data/train-00000-of-00002.parquet", part("train").slice(0, 2)
    )
    image_sets.write_parquet(folder / "data/train-00001-of-00002.parquet", part("train").slice(2))
    for split in ("validation", "test"):
        image_sets.write_parquet(folder / f"data/{split}-00000-of-00001.parquet", part(split))
    (folder / "README.md").write_text("# A set")


def in_folders(folder):
    for split in SPLITS:
        image_sets.write_parquet(folder / split / "0000.parquet", part(split))


def in_the_cache(folder):
    for split in SPLITS:
        image_sets.write_arrow(folder / f"my-set-{split}.arrow", part(split))


@pytest.mark.parametrize("write", [saved, on_the_hub, in_folders, in_the_cache])
def test_sets_of_datasets_keep_splits_names_and_bytes(tmp_path, write):
    (tmp_path / "set").mkdir()
    write(tmp_path / "set")
    out = tmp_path / "out"
    import_lists(tmp_path / "set", output=out)
    assert Hierarchy.from_file(out / "dictionary.txt").ids == tuple(NAMES)
    for split, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        assert contents(out, name) == meant(split)
    assert not (out / "set_aside.tsv").exists()


def test_a_set_is_built_once_and_found_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    on_the_hub(tmp_path / "my set")
    prepare.main(["import", "my set"])
    folder = tmp_path / "data/my_set/released_320/1.0.0"
    built = [(one["image"], one["labels"]) for one in records(folder, "train")]
    assert built == [(data, [NAMES.index(label)]) for data, (label,) in meant("train")]
    packed = next((tmp_path / "my_set_lists").glob("packed_*"))
    printed = capsys.readouterr().out
    assert f"9 images were copied into my_set_lists/{packed.name} (0.0 GB); remove it" in printed
    before = (folder / "metadata.json").stat().st_mtime_ns
    for file in packed.iterdir():
        file.unlink()
    prepare.main(["import", "my set"])  # packs the same again
    assert (folder / "metadata.json").stat().st_mtime_ns == before


def test_another_import_takes_the_place_of_the_first(tmp_path):
    on_the_hub(tmp_path / "set")
    import_lists(tmp_path / "set", output=tmp_path / "out")
    (old,) = (tmp_path / "out").glob("packed_*")
    (tmp_path / "out/packed_notes").mkdir()  # not of this program
    other = [image_sets.images(3, first=40), [2, 2, 2]]
    for split in ("train", "validation", "test"):
        name = f"set/data/{split}-00000-of-00001.parquet"
        image_sets.write_parquet(tmp_path / "new" / name, table(other[0], label=other[1]))
    import_lists(tmp_path / "new/set", output=tmp_path / "out")
    assert contents(tmp_path / "out", "train") == [(one, [NAMES[2]]) for one in other[0]]
    assert not old.exists() and (tmp_path / "out/packed_notes").exists()


def test_a_failure_leaves_the_earlier_import_as_it_was(tmp_path):
    on_the_hub(tmp_path / "set")
    import_lists(tmp_path / "set", output=tmp_path / "out")
    path = tmp_path / "set/data/train-00001-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:-3] + b"XXX")
    with pytest.raises(PrepareError, match=r"train-00001-of-00002\.parquet: neither Parquet nor"):
        import_lists(tmp_path / "set", output=tmp_path / "out")
    image_sets.write_parquet(path, table([None] * 40, label=[0] * 40))
    with pytest.raises(PrepareError, match="40 of 46 rows unusable"):
        import_lists(tmp_path / "set", output=tmp_path / "out")
    assert contents(tmp_path / "out", "train") == meant("train")


@pytest.mark.parametrize(
    ("column", "kind", "cells"),
    [
        ("label", pyarrow.int64(), [1, 0]),
        ("tags", pyarrow.list_(pyarrow.int64()), [[1], [0, 2]]),
        ("labels", pyarrow.string(), ["dog", "cat;dog"]),
        ("fine", pyarrow.int32(), [1, 0]),  # by its metadata alone
        ("objects", pyarrow.struct([("category", pyarrow.list_(pyarrow.int64()))]),
         [{"category": [1, 1]}, {"category": []}]),
    ],
)  # fmt: skip
def test_columns_of_labels(tmp_path, column, kind, cells):
    features = {
        "image": {"_type": "Image"},
        "fine": CLASS_LABEL,
        "label": CLASS_LABEL,
        "tags": {"feature": CLASS_LABEL, "_type": "List"},
        "objects": {"category": {"feature": CLASS_LABEL, "_type": "List"}},
    }
    columns = {column: pyarrow.array(cells, kind), "note": ["a", "b"], "width": [640, 480]}
    content = table(image_sets.images(2), features=features, **columns)
    path = image_sets.write_parquet(tmp_path / "a.parquet", content)
    import_lists(path, output=tmp_path / "out", val_fraction=0)
    found = [sorted(labels) for _, labels in contents(tmp_path / "out", "train")]
    assert (
        found
        == {
            "label": [[NAMES[1]], [NAMES[0]]],
            "tags": [[NAMES[1]], sorted([NAMES[0], NAMES[2]])],
            "labels": [["dog"], ["cat", "dog"]],
            "fine": [[NAMES[1]], [NAMES[0]]],
            "objects": [[NAMES[1]], []],
        }[column]
    )


def test_plain_columns_of_bytes_are_images_if_they_begin_like_some(tmp_path):
    data = image_sets.images(2)
    content = {"embedding": [b"\0" * 8] * 2, "photo": data, "label": ["dog", "cat"]}
    path = tmp_path / "a.parquet"
    for kind in (pyarrow.binary(), pyarrow.large_binary()):
        made = pyarrow.table(content | {"photo": pyarrow.array(data, kind)})
        import_lists(image_sets.write_parquet(path, made), output=tmp_path / "out", val_fraction=0)
        assert contents(tmp_path / "out", "train") == [(data[0], ["dog"]), (data[1], ["cat"])]
    content["mask"] = data
    image_sets.write_parquet(path, pyarrow.table(content))
    with pytest.raises(PrepareError, match=r"'photo', 'mask' contain images: .* --image-column"):
        import_lists(path, output=tmp_path / "out")
    import_lists(path, output=tmp_path / "out", image_column="mask", val_fraction=0)
    with pytest.raises(PrepareError, match="--image-column label: there is no such column of imag"):
        import_lists(path, output=tmp_path / "out", image_column="label")


def test_images_that_are_paths_are_read_inside_the_set_only(tmp_path):
    data, other = image_sets.images(2)
    (tmp_path / "set/images").mkdir(parents=True)
    (tmp_path / "set/images/1.jpg").write_bytes(data)
    (tmp_path / "outside.jpg").write_bytes(other)
    (tmp_path / "set/link").symlink_to(tmp_path)
    paths = ["images/1.jpg", "../outside.jpg", str(tmp_path / "outside.jpg"), "link/outside.jpg",
             "images/absent.jpg"]  # fmt: skip
    content = table([{"bytes": None, "path": one} for one in paths], label=[0, 1, 1, 1, 1])
    image_sets.write_parquet(tmp_path / "set/data/train.parquet", content)
    import_lists(tmp_path / "set", output=tmp_path / "out", set_name="a")
    assert contents(tmp_path / "out", "train") == [(data, [NAMES[0]])]
    aside = (tmp_path / "out/set_aside.tsv").read_text().splitlines()[1:]
    assert [line.split("\t")[1] for line in aside] == ["2", "3", "4", "5"]
    assert all("embed the images, or make their paths relative" in line for line in aside[:3])


def test_unusable_rows_are_set_aside_with_their_number(tmp_path):
    data = image_sets.images(4)
    content = table([data[0], None, {"bytes": None, "path": None}, data[1], data[2], data[3]],
                    label=[0, 1, 1, -1, 3, 2])  # fmt: skip
    path = image_sets.write_parquet(tmp_path / "a.parquet", content)
    import_lists(path, output=tmp_path / "out", val_fraction=0)
    assert contents(tmp_path / "out", "train") == [(data[0], [NAMES[0]]), (data[3], [NAMES[2]])]
    aside = [line.split("\t")[1:] for line in
             (tmp_path / "out/set_aside.tsv").read_text().splitlines()[1:]]  # fmt: skip
    assert aside == [
        ["2", "the image is missing: the cell is empty"],
        ["3", "the image is missing: the cell is empty"],
        ["4", 'there is no label: "label" is empty; fill it in, or give []'],
        ["5", '"label": the class 3 has no name: the metadata has 3, counted from 0; is the file '
              "from another set?"],
    ]  # fmt: skip
    with pytest.raises(PrepareError, match="2 of 6 rows unusable"):
        import_lists(path, output=tmp_path / "out", max_skipped=0)


def test_rows_are_not_set_aside_for_what_the_machine_lacks(tmp_path, monkeypatch):
    (tmp_path / "1.jpg").write_bytes(image_sets.images(1)[0])
    content = table([{"bytes": None, "path": "1.jpg"}], label=[0])
    path = image_sets.write_parquet(tmp_path / "a.parquet", content)
    full = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    monkeypatch.setattr(image_columns, "read_regular", mock.Mock(side_effect=full))
    with pytest.raises(OSError, match="Too many open files"):
        import_lists(path, output=tmp_path / "out", val_fraction=0)


def test_damaged_images_are_the_builders_to_skip(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = image_sets.images(2)
    cells = [good[0], image_files.truncated(good[1]), b"", image_files.HTML]
    image_sets.write_parquet(tmp_path / "a/train.parquet", table(cells, label=[0, 1, 2, 0]))
    import_any(tmp_path / "a")
    folder = tmp_path / "data/a/released_320/1.0.0"
    assert [one["image"] for one in records(folder, "train")] == [good[0]]
    lines = (folder / "skipped.tsv").read_text().splitlines()[1:]
    assert [line.split("\t")[1:3] for line in lines] == [
        ["train-00000.tar/00000002", "truncated"], ["train-00000.tar/00000003", "empty"],
        ["train-00000.tar/00000004", "not_an_image"],
    ]  # fmt: skip


def test_a_split_without_labels_is_left_out(tmp_path, capsys):
    on_the_hub(tmp_path / "set")
    image_sets.write_parquet(tmp_path / "set/data/test-00000-of-00001.parquet",
                             table(image_sets.images(8), label=[-1] * 8))  # fmt: skip
    import_lists(tmp_path / "set", output=tmp_path / "out")
    assert not (tmp_path / "out/test_image_list.txt").exists()
    assert "test is left out, for none of its first rows is usable" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train-00000-of-00001", "extra-00000-of-00001"], {"train": 2, "extra": 2}),
        (["food-00000-of-00002", "food-00001-of-00002"], {"train": 4}),
        (["train_clean-00000-of-00001", "train-00000-of-00001"], {"train_clean": 2, "train": 2}),
        (["00000", "00001"], {"train": 4}),
    ],
)
def test_splits_by_names(tmp_path, names, splits):
    for i, name in enumerate(names):
        content = table(image_sets.images(2, first=2 * i), label=[0, 1])
        image_sets.write_parquet(tmp_path / f"set/{name}.parquet", content)
    fraction = 0 if len(splits) == 1 else None
    import_lists(tmp_path / "set", output=tmp_path / "out", val_fraction=fraction)
    lists = {path.name.removesuffix("_image_list.txt"): len(path.read_text().splitlines())
             for path in (tmp_path / "out").glob("*_image_list.txt")}  # fmt: skip
    assert lists == splits


def test_without_splits_a_fraction_becomes_val(tmp_path):
    image_sets.write_parquet(tmp_path / "a.parquet", table(image_sets.images(60), label=[0] * 60))
    import_lists(tmp_path / "a.parquet", output=tmp_path / "out")
    assert 1 <= len(rows_of(tmp_path / "out", "val")) <= 15
    assert len(rows_of(tmp_path / "out", "train") | rows_of(tmp_path / "out", "val")) == 60


def test_several_sets_and_missing_parts_are_said(tmp_path, capsys):
    on_the_hub(tmp_path / "set")
    (tmp_path / "set/data/train-00000-of-00002.parquet").unlink()
    import_any(tmp_path / "set", dry_run=True)
    assert "set/data/train: 1 of 2 files are missing" in capsys.readouterr().out
    on_the_hub(tmp_path / "set/small")
    with pytest.raises(
        PrepareError, match=r"contains several sets, in .*/data, .*/small/data: giv"
    ):
        import_any(tmp_path / "set", dry_run=True)


def test_files_that_differ_are_named(tmp_path):
    on_the_hub(tmp_path / "set")
    image_sets.write_parquet(tmp_path / "set/data/validation-00000-of-00001.parquet",
                             table(image_sets.images(2), species=[0, 1]))  # fmt: skip
    with pytest.raises(PrepareError, match=r"validation.*lacks the column 'label' of .*test-00000"):
        import_any(tmp_path / "set", dry_run=True)


def test_tables_beside_the_images_are_not_used(tmp_path, capsys):
    on_the_hub(tmp_path / "set")
    statistics = pyarrow.table({"column": ["label"], "mean": [1.5]})
    pyarrow.parquet.write_table(statistics, tmp_path / "set/statistics.parquet")
    (tmp_path / "set/broken.csv").write_text("a")
    import_any(tmp_path / "set", dry_run=True)
    assert "statistics.parquet: no column contains images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"_data_files": [{"filename": "../secret.arrow"}]}, r"state\.json: the name .* not safe"),
        ({"_data_files": [{"filename": "/etc/passwd"}]}, r"state\.json: the name .* not safe"),
        ({"_data_files": [{"filename": "absent.arrow"}]}, r"absent\.arrow: missing, though"),
        ({"_data_files": [3]}, r"None"),
        ({}, "not as save_to_disk writes it"),
        ([], "not as save_to_disk writes it"),
        ({"_data_files": [], "_indices_data_files": [{}]}, "flatten_indices"),
    ],
)
def test_hostile_states_are_refused(tmp_path, state, message):
    image_sets.write_saved(tmp_path / "set", [part("train")])
    image_sets.write_arrow(tmp_path / "secret.arrow", part("train"))
    (tmp_path / "set/state.json").write_text(json.dumps(state))
    with pytest.raises(PrepareError, match=message):
        import_any(tmp_path / "set", dry_run=True)


@pytest.mark.parametrize("keep", [0.3, 0.6, "end"])
def test_a_stream_that_was_cut_off_is_an_error(tmp_path, keep):
    path = image_sets.write_arrow(tmp_path / "a.arrow", part("train"))
    data = path.read_bytes()
    path.write_bytes(data[:-8] if keep == "end" else data[: int(keep * len(data))])
    with pytest.raises(PrepareError, match=r"a\.arrow: damaged after row \d.*copy or download"):
        import_any(path, dry_run=True)


def test_parquet_is_read_by_the_thread_that_asks(tmp_path, monkeypatch):
    """Others hold the file when Python ends, which hangs, and a row group instead of a page."""
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": [1, 2, 3]}), path)
    threads = reading_threads.noted(monkeypatch)
    batches = ArrowFile(path).batches(["a"], pyarrow.RecordBatch.to_pydict, rows=2)
    assert list(batches) == [{"a": [1, 2]}, {"a": [3]}]
    assert threads == {threading.get_ident()}


def test_arrow_files_with_an_index(tmp_path):
    content = part("train")
    with pyarrow.ipc.new_file(tmp_path / "a.arrow", content.schema) as file:
        file.write_table(content)
    import_lists(tmp_path / "a.arrow", output=tmp_path / "out", val_fraction=0)
    assert contents(tmp_path / "out", "train") == meant("train")


def test_offsets_that_lie_are_refused(tmp_path):
    """Arrow trusts the offsets of a column of bytes, so they are checked before any is used."""
    path = image_sets.write_arrow(tmp_path / "a.arrow", part("train"))
    data = bytearray(path.read_bytes())
    lengths = [len(one) for one in image_sets.images(2)]
    offsets = b"".join(n.to_bytes(4, "little") for n in (0, lengths[0], sum(lengths)))
    at = data.index(offsets)
    data[at + 8 : at + 12] = (2**31 - 1).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(PrepareError, match=r"a\.arrow: damaged after row 0"):
        import_lists(path, output=tmp_path / "out")


def test_a_table_of_paths_gets_the_names_of_its_classes(tmp_path):
    (tmp_path / "1.jpg").write_bytes(image_sets.images(1)[0])
    content = pyarrow.table({"path": ["1.jpg", "2.jpg"], "label": [2, 0]})
    metadata = {"huggingface": json.dumps({"info": {"features": FEATURES}})}
    image_sets.write_parquet(tmp_path / "a.parquet", content.replace_schema_metadata(metadata))
    import_table([tmp_path / "a.parquet"], output=tmp_path / "out")
    assert rows_of(tmp_path / "out", "train") == {"1.jpg": [NAMES[2]], "2.jpg": [NAMES[0]]}
    assert Hierarchy.from_file(tmp_path / "out/dictionary.txt").ids == tuple(NAMES)


def test_a_dictionary_gives_the_classes_if_asked(tmp_path):
    on_the_hub(tmp_path / "set")
    import_lists(tmp_path / "set", output=tmp_path / "out")
    lines = (tmp_path / "out/dictionary.txt").read_text().splitlines()
    text = "\n".join(
        [lines[0], *(f"{i}\t{name}\t-1\t{name}" for i, name in enumerate(NAMES[::-1]))]
    )
    (tmp_path / "mine.txt").write_text(text + "\n")
    import_lists(tmp_path / "set", output=tmp_path / "other", dictionary=tmp_path / "mine.txt")
    assert contents(tmp_path / "other", "train") == meant("train")
    assert Hierarchy.from_file(tmp_path / "other/dictionary.txt").ids == tuple(NAMES[::-1])
