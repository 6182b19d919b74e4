# SPDX-License-Identifier: BSD-3-Clause
"""One door for all kinds of data: what it recognises, what it writes, and what it says next."""

import functools
import gzip
import json
import os
import random
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from mlimages_jax.labels.hierarchy import Hierarchy, HierarchyError
from mlimages_jax.labels.lists import LabelListError, read_label_list
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare import __main__ as prepare
from mlimages_jax.prepare.imports.door import import_any
from tests.support import fuzzing, image_files, imagenet_archives
from tfds_builders.image_folder import __main__ as image_folder
from tfds_builders.imagenet import __main__ as imagenet
from tfds_builders.ml_images import __main__ as ml_images

IMAGE = image_files.jpeg(image_files.quadrants())
import_lists = functools.partial(import_any, lists_only=True)
COCO = {
    "images": [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "2.jpg"}],
    "annotations": [{"image_id": 1, "category_id": 7}],
    "categories": [{"id": 7, "name": "dog"}],
}
TENCH, SHARK = "n01440764", "n01484850"


def _files(folder: Path, files: dict[str, str | bytes | dict]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(content) if isinstance(content, dict) else content
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def _images(*names: str) -> dict[str, bytes]:
    """Files of images, all different."""
    return {name: image_files.jpeg(image_files.noise(16, 17 + i)) for i, name in enumerate(names)}


def _rows(out: Path, split: str = "train") -> dict[str, set[str]]:
    ids = Hierarchy.from_file(out / "dictionary.txt").ids
    rows = read_label_list(out / f"{split}_image_list.txt", num_classes=len(ids))
    return {row.name: {ids[class_] for class_ in row.classes} for row in rows}


WITH_LISTS = {
    "COCO": (
        {**_images("train2017/1.jpg", "train2017/2.jpg", "val2017/1.jpg", "val2017/2.jpg"),
         "annotations/instances_train2017.json": COCO, "annotations/instances_val2017.json": COCO,
         "annotations/captions_val2017.json": {"images": [], "annotations": []},
         "annotations/person_keypoints_train2017.json": COCO},
        {"train": {"train2017/1.jpg": {"dog"}, "train2017/2.jpg": set()},
         "val": {"val2017/1.jpg": {"dog"}, "val2017/2.jpg": set()}},
    ),
    "Roboflow": (
        {**_images("train/1.jpg", "train/2.jpg", "valid/1.jpg", "valid/2.jpg"),
         "train/_annotations.coco.json": COCO, "valid/_annotations.coco.json": COCO,
         "README.roboflow.txt": "-"},
        {"train": {"train/1.jpg": {"dog"}, "train/2.jpg": set()},
         "val": {"valid/1.jpg": {"dog"}, "valid/2.jpg": set()}},
    ),
    "metadata.csv": (
        {**_images("1.jpg", "2.jpg"), "metadata.csv": "file_name,label\n1.jpg,dog\n2.jpg,cat\n"},
        {"train": {"1.jpg": {"dog"}, "2.jpg": {"cat"}}},
    ),
    "metadata.jsonl of splits": (
        {**_images("train/1.jpg", "validation/2.jpg"),
         "train/metadata.jsonl": '{"file_name": "1.jpg", "label": "dog"}\n',
         "validation/metadata.jsonl": '{"file_name": "2.jpg", "label": "dog"}\n'},
        {"train": {"train/1.jpg": {"dog"}}, "val": {"validation/2.jpg": {"dog"}}},
    ),
    "tables of splits": (
        {**_images("images/1.jpg", "images/2.jpg"), "train.csv": "image,tags\n1.jpg,dog\n",
         "test.csv": "image\n3.jpg\n", "valid.csv": "image,tags\n2.jpg,dog\n"},
        {"train": {"1.jpg": {"dog"}}, "val": {"2.jpg": {"dog"}}},
    ),
    "a column of splits": (
        {**_images("images/1.jpg", "images/2.jpg"),
         "all.tsv": "image\tsplit\tdog\tcat\n1.jpg\tTrain\t1\t0\n2.jpg\tvalidation\t1\t1\n"},
        {"train": {"1.jpg": {"dog"}}, "val": {"2.jpg": {"dog", "cat"}}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", WITH_LISTS)
def test_lists_are_written_and_the_printed_command_builds(tmp_path, monkeypatch, capsys, kind):
    files, meant = WITH_LISTS[kind]
    source = _files(tmp_path / "my data", files)
    monkeypatch.chdir(tmp_path)
    val_fraction = ["--val-fraction", "0"] if kind == "metadata.csv" else []
    prepare.main(["import", "my data", "--lists-only", *val_fraction])
    out = tmp_path / "my_data_lists"
    assert {split: _rows(out, split) for split in meant} == meant
    images = {path.resolve() for split in meant for path in
              (out / "images" / name for name in meant[split])}  # fmt: skip
    assert all(path.is_file() and path.is_relative_to(source) for path in images)
    command = capsys.readouterr().out.splitlines()[-1].split()
    assert command[:4] == ["mlimages", "data", "build", "ml-images"]
    ml_images.main(shlex.split(" ".join(command[4:])))
    assert capsys.readouterr().out.strip() == "data/my_data/released_320/1.0.0"


@pytest.mark.parametrize(
    "files",
    [
        WITH_LISTS["metadata.csv"][0],
        WITH_LISTS["COCO"][0],
        _images(*(f"{one}/{i}.jpg" for one in "ab" for i in range(4))),
        {"dictionary.txt": "", "train_image_list.txt": ""},  # without images yet
        {"t.csv": "path,labels\nhttp://a.org/1.jpg,a\nhttp://a.org/2.jpg,b\n"},
    ],
)
def test_the_printed_command_has_the_options_that_were_given(tmp_path, monkeypatch, capsys, files):
    _files(tmp_path / "set", files)
    monkeypatch.chdir(tmp_path)
    choice = ["--data-dir=my sets", "--engine=ray", "--workers=3"]
    prepare.main(["import", "set", "--lists-only", *choice])
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert words[:3] == ["mlimages", "data", "build"] and set(choice) <= set(words)


WITHOUT_LISTS = {
    "one folder per class": (_images(*(f"{one}/{i}.jpg" for one in "ab" for i in range(4))),
                           image_folder),
    "splits": (_images("Train/a/1.jpg", "Train/b/2.jpg", "valid/a/3.jpg"), image_folder),
    "in a folder": (_images(*(f"pets/{one}/{i}.jpg" for one in "ab" for i in range(4))),
                    image_folder),
    "Kaggle": (
        {**_images(f"ILSVRC/Data/CLS-LOC/train/{TENCH}/{TENCH}_1.JPEG",
                   f"ILSVRC/Data/CLS-LOC/train/{SHARK}/{SHARK}_1.JPEG",
                   "ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000001.JPEG"),
         "LOC_val_solution.csv": f"ImageId,PredictionString\nILSVRC2012_val_00000001,{TENCH} 1\n",
         "LOC_synset_mapping.txt": f"{TENCH} tench\n"},
        imagenet,
    ),
    "archives": (
        {"ILSVRC2012_img_train.tar": imagenet_archives.tar(
            {f"{TENCH}.tar": imagenet_archives.tar({f"{TENCH}_1.JPEG": IMAGE})})},
        imagenet,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", WITHOUT_LISTS)
def test_what_builders_read_needs_no_lists(tmp_path, monkeypatch, capsys, kind):
    files, module = WITHOUT_LISTS[kind]
    source = _files(tmp_path / "it's mine", files)
    before = sorted(source.rglob("*"))
    monkeypatch.chdir(tmp_path)
    prepare.main(["import", "it's mine", "--lists-only"])
    assert sorted(source.rglob("*")) == before and sorted(tmp_path.iterdir()) == [source]
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    builder = module.__name__.removesuffix(".__main__").rpartition(".")[2].replace("_", "-")
    assert words[:4] == ["mlimages", "data", "build", builder]
    module.main(words[4:])
    assert Path(capsys.readouterr().out.strip()).is_dir()


def test_a_dry_run_shows_and_writes_nothing(tmp_path, monkeypatch, capsys):
    text = "Bild;Tags\n" + "".join(f"{i}.jpg;dog|cat\n" for i in range(8)) + "8.jpg;:0.5\n"
    source = _files(tmp_path / "s p", {**_images("fotos/1.jpg", "fotos/3.jpg"), "t.csv": text})
    monkeypatch.chdir(tmp_path)
    prepare.main(["import", "s p", "--dry-run", "--label-columns", "Tags", "--workers", "2"])
    out = capsys.readouterr().out
    assert "columns between semicolons" in out and "path in 'Bild', labels in 'Tags'" in out
    assert "0.jpg -> dog, cat" in out and "separated by '|'" in out
    assert "t.csv:10: a label is empty" in out and "1 of 9 rows set aside" in out
    assert "looked for 8 images, found 2 in" in out
    assert sorted(tmp_path.iterdir()) == [source]
    again = shlex.split(out.splitlines()[-1])
    assert again[:3] == ["mlimages", "data", "import"] and "--workers=2" in again
    prepare.main([*again[2:], "--lists-only"])
    assert "data build ml-images --manual-dir=s_p_lists" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("files", "folder"),
    [
        ({**_images("1.jpg", "2.jpg"), "t.csv": "path,labels\n1.jpg,a > dog\n2.jpg,a > cat\n"},
         "closed_320"),
        ({**_images("1.jpg", "2.jpg"), "t.csv": "path,labels\n1.jpg,dog\n2.jpg,cat\n"},
         "released_320"),
        (_images("a/1.jpg", "b/2.jpg", "b/3.jpg"), "original"),
    ],
)  # fmt: skip
def test_an_import_builds_the_set_and_prints_how_to_train(
    tmp_path, monkeypatch, capsys, files, folder
):
    _files(tmp_path / "my photos", files)
    monkeypatch.chdir(tmp_path)
    options = ["--val-fraction", "0", "--data-dir", "sets", "--workers", "0"]
    for _ in range(2):  # the second time the set is finished
        prepare.main(["import", "my photos", *options])
        built = f"sets/my_photos/{folder}/1.0.0"
        *lines, last_of_build, title, train, tag = capsys.readouterr().out.splitlines()
        assert any("mlimages data build" in line and "--workers=0" in line for line in lines)
        assert last_of_build == built and (tmp_path / built / "dataset_info.json").is_file()
        assert title.startswith("Train a tagger")
        assert f"--config=tagger --data={built} --workdir=workdirs/my_photos" in train
        assert "mlimages tag IMAGES --checkpoint=workdirs/my_photos" in tag
    prepare.main(["import", built])
    assert train in capsys.readouterr().out


def test_a_single_file(tmp_path, capsys):
    _files(tmp_path, {**_images("1.jpg", "2.jpg"), "c.json": COCO, "t.jsonl":
           '{"image": "1.jpg", "labels": ["dog"]}\n'})  # fmt: skip
    import_lists(tmp_path / "c.json", output=tmp_path / "c")
    assert _rows(tmp_path / "c") == {"1.jpg": {"dog"}, "2.jpg": set()}
    import_lists(tmp_path / "t.jsonl", output=tmp_path / "t", val_fraction=0)
    assert _rows(tmp_path / "t") == {"1.jpg": {"dog"}}


def test_coco_is_recognised_in_any_encoding_and_compressed(tmp_path):
    _files(tmp_path, _images("1.jpg", "2.jpg"))
    text = json.dumps(COCO)
    # Longer than what is read of each end, so that its keys are found at both.
    padded = text.replace("{", '{"info": "' + "-" * 150_000 + '", ', 1)
    for name, data in {
        "16.json": text.encode("utf-16"),
        "32.json": text.encode("utf-32-be"),
        "packed.json.gz": gzip.compress(padded.encode()),
        "hidden.json": gzip.compress(text.encode()),
    }.items():
        (tmp_path / name).write_bytes(data)
        import_lists(tmp_path / name, output=tmp_path / "out" / name)
        assert _rows(tmp_path / "out" / name) == {"1.jpg": {"dog"}, "2.jpg": set()}


def test_a_damaged_file_beside_the_annotations_is_noted(tmp_path, capsys):
    _files(tmp_path, {**_images("1.jpg", "2.jpg"), "c.json": COCO, "old.json": bytes(100)})
    import_lists(tmp_path, output=tmp_path / "out")
    assert _rows(tmp_path / "out") == {"1.jpg": {"dog"}, "2.jpg": set()}
    assert "old.json: starts with NUL bytes only" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty|no rows"),
        (b"\xff\xfe", "empty|no rows"),
        (b"\n \n", "empty|no rows"),
        (bytes(100), "starts with NUL bytes only"),
        (gzip.compress(bytes(100), mtime=0), "starts with NUL bytes only"),
        (gzip.compress(b"path,labels\n" * 20, mtime=0)[:-12], "cannot be decompressed"),
    ],
)
def test_empty_and_damaged_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PrepareError, match=rf"{re.escape(name)}\b.*({message})"):
        import_lists(tmp_path / name, dry_run=True)


@pytest.mark.parametrize(
    ("column", "cells", "splits"),
    [
        ("is_valid", ("True", "False", "1"), {"val": 2, "train": 1}),
        ("is_test", ("0", "no", "yes"), {"train": 2, "test": 1}),
        ("split", ("train", "held_out", "VALID"), {"train": 1, "held_out": 1, "val": 1}),
    ],
)
def test_a_column_tells_splits(tmp_path, column, cells, splits):
    rows = "".join(f"{i}.jpg,dog,{cell}\n" for i, cell in enumerate(cells, start=1))
    _files(tmp_path, _images("1.jpg", "2.jpg", "3.jpg"))
    (tmp_path / "t.csv").write_text(f"file,label,{column}\n{rows}")
    import_lists(tmp_path / "t.csv", output=tmp_path / "out")
    lists = {path.name.removesuffix("_image_list.txt"): len(path.read_text().splitlines())
             for path in (tmp_path / "out").glob("*_image_list.txt")}  # fmt: skip
    assert lists == splits


def test_a_column_that_tells_no_splits_is_named(tmp_path, capsys):
    _files(tmp_path, _images("1.jpg", "2.jpg"))
    (tmp_path / "t.csv").write_text("file,label,fold\n1.jpg,dog,3\n2.jpg,a cat,4\n")
    import_lists(tmp_path / "t.csv", dry_run=True)
    said = capsys.readouterr().out
    assert "'fold' is not a split column: its words are not train, val and test" in said
    assert "if spaces separate labels: --label-separator ' '" in said


def test_a_table_without_rows_and_a_workbook_are_named(tmp_path):
    (tmp_path / "t.csv").write_text("file,label\n")
    with pytest.raises(PrepareError, match=r"t[.]csv: there are no rows with images"):
        import_lists(tmp_path / "t.csv", dry_run=True)
    (tmp_path / "t.xlsx").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(PrepareError, match=r"is a spreadsheet .*: save it as CSV in UTF-8"):
        import_lists(tmp_path / "t.xlsx", dry_run=True)
    (tmp_path / "t.csv").unlink()
    with pytest.raises(PrepareError, match=r"t[.]xlsx is a spreadsheet: save it as CSV in UTF-8"):
        import_lists(tmp_path, dry_run=True)


def test_forms_for_predictions_are_no_labels(tmp_path, capsys):
    _files(tmp_path / "set", _images("train/1.jpg", "train/2.jpg", "test/3.jpg"))
    (tmp_path / "set" / "train.csv").write_text("id,label\n1,a\n2,b\n")
    (tmp_path / "set" / "sample_submission.csv").write_text("id,label\n3,a\n")
    import_lists(tmp_path / "set", output=tmp_path / "out")
    assert _rows(tmp_path / "out") == {"1.jpg": {"a"}, "2.jpg": {"b"}}
    assert "sample_submission.csv: by its name a form for predictions" in capsys.readouterr().out


def test_labels_of_metadata_go_before_names_of_folders(tmp_path):
    source = _files(tmp_path / "set", _images("train/x/1.jpg", "train/y/2.jpg"))
    (source / "train" / "metadata.csv").write_text("file_name,label\nx/1.jpg,cat\ny/2.jpg,dog\n")
    import_lists(source, output=tmp_path / "out", val_fraction=0)
    assert _rows(tmp_path / "out") == {"x/1.jpg": {"cat"}, "y/2.jpg": {"dog"}}
    (source / "train" / "metadata.csv").write_text("file_name,text\nx/1.jpg,A\ny/2.jpg,The\n")
    import_lists(source, output=tmp_path / "none")  # of captions: the folders are the classes
    assert not (tmp_path / "none").exists()


def test_all_of_one_folder_a_class_for_training(tmp_path, capsys):
    source = _files(tmp_path / "pets", _images("cat/1.jpg", "cat/2.jpg", "dog/3.jpg"))
    import_lists(source, val_fraction=0)
    command = capsys.readouterr().out.splitlines()[-1]
    assert command.endswith("--val-fraction=0")
    words = shlex.split(command)[4:]
    image_folder.main([word.replace("=data", f"={tmp_path / 'data'}") for word in words])
    built = Path(capsys.readouterr().out.splitlines()[-1])
    assert json.loads((built / "metadata.json").read_text())["skipped"] == {"train": 0}


def test_a_folder_called_as_a_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("coco", "table", "any"):
        _files(tmp_path / name, _images("a/1.jpg", "b/2.jpg", "b/3.jpg"))
        prepare.main(["import", name, "--lists-only"])
        assert "one folder per class" in capsys.readouterr().out
        prepare.main(["import", name, "--dry-run"])
    with pytest.raises(SystemExit, match="no such file or folder"):
        prepare.main(["import", "nothing"])


def test_addresses_are_downloaded_first(tmp_path, capsys):
    source = _files(tmp_path, {"t.csv": "url,label\nhttp://a.org/1.jpg,dog\n"})
    import_lists(source, output=tmp_path / "out", val_fraction=0)
    out = capsys.readouterr().out
    assert f"data download {tmp_path}/out/train_image_list.txt --output" in out
    _files(tmp_path / "list", {"train_urls.txt": "http://a.org/1.jpg\t3:1\t4:0.5\n"})
    import_lists(tmp_path / "list" / "train_urls.txt")
    assert "data download" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "it contains 0 images"),
        (_images("1.jpg", "2.jpg"), "it contains 2 images"),
        ({**_images("images/1.jpg"), "data.yaml": "-", "labels/1.txt": "0 0 0 1 1\n",
          "labels/2.txt": "0 0 0 1 1\n"}, "looks like YOLO: export it as COCO"),
        ({**_images("1.jpg"), "1.xml": "<a/>", "2.xml": "<a/>"}, "looks like Pascal VOC"),
        ({"a.zip": b"PK"}, "it contains archives: unpack them first"),
        ({**_images("1.jpg"), "t.csv": "image,age,height\n1.jpg,3,40\n"}, "--label-columns NAME"),
        ({"t.csv": "image,label\n7.jpg,dog\n"}, "none of its images is in"),
    ],
)  # fmt: skip
def test_what_is_not_recognised_says_what_fits(tmp_path, files, message):
    (tmp_path / "data").mkdir()
    _files(tmp_path / "data", files)
    with pytest.raises(PrepareError, match="not recognised") as error:
        import_lists(tmp_path / "data", output=tmp_path / "out")
    assert message in str(error.value) and "one folder per class" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_finished_things_are_known(tmp_path, capsys):
    source = _files(tmp_path / "data", {**_images("1.jpg"), "t.csv": "image,label\n1.jpg,dog\n"})
    import_lists(source, output=tmp_path / "out", val_fraction=0)
    import_lists(tmp_path / "out")
    assert "lists that the builder reads" in capsys.readouterr().out
    _files(tmp_path / "built", {"dataset_info.json": "{}"})
    import_lists(tmp_path / "built")
    assert f"--config=tagger --data={tmp_path}/built " in capsys.readouterr().out
    _files(tmp_path / "oi", {"a.csv": "ImageID,Source,LabelName,Confidence\n1,v,/m/1,1\n"})
    import_lists(tmp_path / "oi")
    assert "import open-images" in capsys.readouterr().out


def test_a_folder_that_is_not_utf8_gives_commands_that_a_shell_reads(tmp_path, capsys):
    for name in ("b\udce9d", "it's", "two\nlines", "x y"):
        source = _files(tmp_path / name, _images("a/1.jpg", "a/2.jpg", "b/3.jpg"))
        import_lists(source)
        command = capsys.readouterr().out.splitlines()[-1].strip()
        command = command.replace("mlimages", "printf %s", 1)
        printed = subprocess.run(["bash", "-c", command], stdout=subprocess.PIPE, check=True).stdout
        assert f"--manual-dir={source}--data-dir" in os.fsdecode(printed)


# ---------- whatever it is given

PARTS = [
    "train", "val2017", "annotations", "images", "cat", "n01440764", "x y", "e\u0301", ".git",
    "caf\udce9",
]  # fmt: skip
FILES = [
    "1.jpg", "2.jpg", "metadata.csv", "metadata.jsonl", "train.csv", "instances_train2017.json",
    "_annotations.coco.json", "t.parquet", "labels.tsv", "LOC_val_solution.csv", "a.txt",
    "dictionary.txt", "train_image_list.txt", "x.tfrecords", "t.csv.gz", "t.json", "state.json",
    "train-00000-of-00001.arrow", "00000.tar", "00000.parquet", "00000_stats.json",
]  # fmt: skip
DATA = [
    IMAGE, b"", b"file_name,label\n1.jpg,dog\n2.jpg,cat\n", b"{", b"[]", json.dumps(COCO).encode(),
    b'{"file_name": "1.jpg", "label": "dog"}\n', b"a;b\n\"1.jpg;2\n", b"\xff\xfea\x00",
    b"http://a/b.jpg\t3:1\n", b"path,dog,cat\n1.jpg,1,0\n", b'{"images": [], "annotations": 3}',
    b'{"_data_files": [{"filename": "00000.arrow"}]}', b'{"splits": ["train"]}',
    imagenet_archives.tar({"1.jpg": IMAGE, "1.cls": b"1"}),
]  # fmt: skip


def _assert_no_tree_crashes(folder: Path, seed: int) -> None:
    random_ = random.Random(seed)
    for _ in range(random_.randint(1, 7)):
        parts = [random_.choice(PARTS) for _ in range(random_.randint(0, 2))]
        path = folder.joinpath(*parts, random_.choice(FILES))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random_.choice(DATA))
    source = folder if random_.random() < 0.7 else random_.choice(sorted(folder.rglob("*")))
    try:
        import_lists(source, output=folder.with_name(f"{seed}_out"), dry_run=seed % 3 == 0)
    except (PrepareError, LabelListError, HierarchyError) as error:
        assert str(error), seed


def test_no_tree_crashes_the_door(tmp_path):
    for seed in range(200):
        _assert_no_tree_crashes(tmp_path / str(seed), seed)


@pytest.mark.slow
@pytest.mark.parametrize("part", fuzzing.HALF_PARTS)
def test_ten_thousand_trees(tmp_path, part):
    for seed in range(500 * part, 500 * part + 500):
        _assert_no_tree_crashes(tmp_path / str(seed), seed)
