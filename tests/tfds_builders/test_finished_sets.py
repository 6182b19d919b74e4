# SPDX-License-Identifier: BSD-3-Clause
"""A finished set is never destroyed, never stale, and never a half one."""

import io
import json
import logging
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import image_files
from tests.tfds_builders.built_set import REPOSITORY, TRAIN, records, write_manual_dir
from tfds_builders import imagenet, ml_images, shapes
from tfds_builders.imagenet import __main__ as imagenet_command
from tfds_builders.images import builder, fingerprint, replacement, skipped, unfinished
from tfds_builders.images import command as shared_command
from tfds_builders.ml_images import __main__ as command

VERSION = "ml_images/released_320/1.0.0"


@pytest.fixture
def manual_dir(tmp_path) -> Path:
    return write_manual_dir(tmp_path / "manual")


@pytest.fixture
def finished(manual_dir, tmp_path) -> Path:
    return ml_images.build(manual_dir, tmp_path / "data")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def names(folder: Path) -> list[str]:
    return [record["name"] for record in records(folder, "train")]


def beside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.parent.iterdir())


def shrink_list(manual_dir: Path) -> None:
    (manual_dir / "train_image_list.txt").write_text("a/red.jpg\t3:1\n")


# ---------- overwriting

DAMAGES = {
    "no class list": lambda manual: (manual / "dictionary.txt").unlink(),
    "no list": lambda manual: [path.unlink() for path in manual.glob("*_list.txt")],
    "no images": lambda manual: (manual / "images").rename(manual / "elsewhere"),
    "a broken list": lambda manual: (manual / "train_image_list.txt").write_text("a.jpg\t99:1\n"),
    "an empty list": lambda manual: (manual / "train_image_list.txt").write_text(""),
    "another word": lambda manual: (manual / "unlisted.txt").write_text("maybe"),
    "unusable images": lambda manual: [
        path.write_bytes(b"") for path in (manual / "images").glob("**/*.*")
    ],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_bad_input_leaves_the_finished_set(manual_dir, tmp_path, finished, damage):
    before = content(finished)
    damage(manual_dir)
    with pytest.raises((ValueError, OSError)):
        ml_images.build(manual_dir, tmp_path / "data", overwrite=True)
    assert content(finished) == before


def test_imagenet_and_bad_input(tmp_path):
    for split in ("train", "val"):
        (tmp_path / "own" / split / "cat").mkdir(parents=True)
        image = image_files.jpeg(image_files.quadrants())
        (tmp_path / "own" / split / "cat/1.jpg").write_bytes(image)
    folder = imagenet.build(tmp_path / "own", tmp_path / "data", name="own")
    before = content(folder)
    (tmp_path / "own/val/dog").mkdir()
    (tmp_path / "own/val/dog/1.jpg").write_bytes(image)
    with pytest.raises(ValueError, match="'dog', is missing from"):
        imagenet.build(tmp_path / "own", tmp_path / "data", name="own", overwrite=True)
    assert content(folder) == before


@pytest.mark.parametrize("exchange", [True, False])
def test_overwriting_replaces_the_set_and_leaves_nothing(
    manual_dir, tmp_path, finished, monkeypatch, exchange
):
    if not exchange:
        monkeypatch.setattr(replacement, "_exchange", lambda one, other: False)
    shrink_list(manual_dir)
    assert ml_images.build(manual_dir, tmp_path / "data", overwrite=True) == finished
    assert names(finished) == ["a/red.jpg"]
    assert beside(finished) == ["1.0.0"]
    expected = ml_images.build(manual_dir, tmp_path / "new")
    assert content(finished) == content(expected)


# What a process was about to do when it was killed -> the function, and at which call.
MOMENTS = {
    "write a shard": ("shards.ShardWriter.write", 2),
    "put a shard into the set": ("unfinished.os.link", 2),
    "write TFDS's files": ("tfds.core.DatasetInfo.write_to_directory", 1),
    "exchange the sets": ("replacement._exchange", 1),
    "remove the old one": ("replacement._remove", 1),
    "clean up": ("unfinished.remove", 1),
}
WITHOUT_EXCHANGE = {
    "set the old one aside": ("replacement.Path.rename", 1),
    "name the new one": ("replacement.Path.rename", 2),
    "remove the old one, renamed": ("replacement._remove", 1),
}


def kill_while_overwriting(manual_dir, data_dir, function, call, *, exchange):
    script = f"""
import os, signal
import tensorflow_datasets as tfds
from tfds_builders import ml_images
from tfds_builders.images import replacement, shards, unfinished
def armed():
    original, calls = {function}, []
    def kill(*arguments, **options):
        calls.append(1)
        if len(calls) == {call}: os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)
    return kill
if not {exchange}: replacement._exchange = lambda one, other: False
original_swap = replacement.swap
if {function.startswith("replacement.Path")}:  # from the swap on: TFDS renames too
    def swap(folder):
        {function} = armed()
        original_swap(folder)
    replacement.swap = swap
else:
    {function} = armed()
ml_images.build({str(manual_dir)!r}, {str(data_dir)!r}, overwrite=True, threads=1)
"""
    killed = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(one, marks=[] if one == "exchange the sets" else pytest.mark.slow)
        for one in (*MOMENTS, *WITHOUT_EXCHANGE)
    ],
)
def test_killed_while_overwriting(manual_dir, tmp_path, finished, moment):
    exchange = moment in MOMENTS
    function, call = (MOMENTS | WITHOUT_EXCHANGE)[moment]
    old = content(finished)
    expected = ml_images.build(manual_dir, tmp_path / "same")
    shrink_list(manual_dir)
    kill_while_overwriting(manual_dir, tmp_path / "data", function, call, exchange=exchange)
    new = content(ml_images.build(manual_dir, tmp_path / "new"))

    if moment != "name the new one":  # where the system cannot exchange two folders
        assert content(finished) in (old, new)
    try:  # the next start puts in order what there is, and refuses or uses it
        ml_images.build(manual_dir, tmp_path / "data")
        assert content(finished) == new
        assert beside(finished) == ["1.0.0"]
    except fingerprint.StaleSetError:
        assert content(finished) == old == content(expected)
        ml_images.build(manual_dir, tmp_path / "data", overwrite=True)
    assert content(finished) == new
    assert beside(finished) == ["1.0.0"]


def test_a_replacement_that_was_interrupted_is_resumed(manual_dir, tmp_path, finished, monkeypatch):
    write, calls = unfinished.write, []

    def fail_at_the_second(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return write(*arguments)

    before = content(finished)
    with monkeypatch.context() as patch:
        patch.setattr(unfinished, "write", fail_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            ml_images.build(manual_dir, tmp_path / "data", overwrite=True)
    assert content(finished) == before
    (shard,) = finished.with_name("1.0.0.unfinished").glob("*.array_record-*[0-9]")
    inode = shard.stat().st_ino
    ml_images.build(manual_dir, tmp_path / "data", overwrite=True)
    assert (finished / shard.name).stat().st_ino == inode


def test_another_folder_under_its_name_is_left_alone(manual_dir, tmp_path):
    folder = tmp_path / "data" / VERSION
    folder.mkdir(parents=True)
    (folder / "diary.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(
            FileExistsError, match=r"is not a finished data set .*give another --name"
        ):
            ml_images.build(manual_dir, tmp_path / "data", overwrite=overwrite)
    assert (folder / "diary.txt").read_text() == "mine"


# ---------- another input

OTHER_INPUT = {
    "another row": (
        lambda manual: (manual / "train_image_list.txt").write_text("\n".join(TRAIN[:4])),
        "list of train: 5 images in the set, 4 images now",
    ),
    "another label": (
        lambda manual: (manual / "val_image_list.txt").write_text("b/red.jpg\t0:0.5\n"),
        "list of val: differs (1 images)",
    ),
    "another split": (
        lambda manual: shutil.copy(manual / "val_image_list.txt", manual / "test_image_list.txt"),
        "list of test: not in the set",
    ),
    "a split less": (
        lambda manual: (manual / "val_image_list.txt").unlink(),
        "list of val: only in the set",
    ),
    "another name of a class": (
        lambda manual: (manual / "dictionary.txt").write_text(
            (manual / "dictionary.txt").read_text().replace("dog, domestic dog", "dog")
        ),
        "classes: differs (5)",
    ),
    "another word for missing labels": (
        lambda manual: (manual / "unlisted.txt").write_text("unknown"),
        "missing labels: absent in the set, unknown now",
    ),
    "an image that was replaced": (
        lambda manual: (manual / "images/grey.jpg").write_bytes(
            image_files.jpeg(image_files.noise())
        ),
        "image files of train: differs",
    ),
    "an image that is gone": (
        lambda manual: (manual / "images/grey.jpg").unlink(),
        "image files of train: differs",
    ),
}


@pytest.mark.parametrize("change, difference", OTHER_INPUT.values(), ids=OTHER_INPUT)
def test_other_input_is_refused(manual_dir, tmp_path, finished, change, difference):
    before = content(finished)
    ml_images.build(manual_dir, tmp_path / "data")  # nothing differs yet
    change(manual_dir)
    with pytest.raises(fingerprint.StaleSetError) as error:
        ml_images.build(manual_dir, tmp_path / "data")
    message = str(error.value)
    assert difference in message
    assert str(finished) in message and "--overwrite" in message and "--name" in message
    assert content(finished) == before
    ml_images.build(manual_dir, tmp_path / "data", name="another")
    ml_images.build(manual_dir, tmp_path / "data", overwrite=True)
    ml_images.build(manual_dir, tmp_path / "data")


def test_another_folder_or_number_of_files_is_refused(manual_dir, tmp_path, finished):
    shutil.copytree(manual_dir, tmp_path / "copy")
    with pytest.raises(fingerprint.StaleSetError, match="source of train: differs"):
        ml_images.build(tmp_path / "copy", tmp_path / "data")
    with pytest.raises(ValueError, match="files of records of train: 1 in the set, 2 now"):
        ml_images.build(manual_dir, tmp_path / "data", num_shards=2)


def test_options_with_a_folder_of_their_own_do_not_meet(manual_dir, tmp_path, finished):
    for options in (
        {"labels": "closed"}, {"short_side": 16}, {"chroma": "420"}, {"orientation": "stored"},
    ):  # fmt: skip
        assert ml_images.build(manual_dir, tmp_path / "data", **options) != finished


def test_what_does_not_change_a_set_does_not_matter(manual_dir, tmp_path, finished):
    options = {"threads": 3, "max_skipped": 0.5, "verified": True}
    assert ml_images.build(manual_dir, tmp_path / "data", **options) == finished
    (tmp_path / "link").symlink_to(manual_dir)
    assert ml_images.build(tmp_path / "link", tmp_path / "data") == finished
    assert ml_images.build(manual_dir / "../manual", tmp_path / "data") == finished


def test_folders_of_classes(tmp_path, capsys):
    image = image_files.jpeg(image_files.quadrants())
    for name in ("train/cat/1.jpg", "train/dog/1.jpg", "val/cat/2.jpg"):
        (tmp_path / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "own" / name).write_bytes(image)
    flags = [f"--manual_dir={tmp_path / 'own'}", f"--data_dir={tmp_path / 'data'}"]
    imagenet_command.main([*flags, "--splits=train"])
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "data/own/original/1.0.0")]
    with pytest.raises(SystemExit, match="list of val: not in the set"):
        imagenet_command.main(flags)
    (tmp_path / "own/train/dog/2.jpg").write_bytes(image)
    with pytest.raises(SystemExit, match="list of train: 2 images in the set, 3 images now"):
        imagenet_command.main([*flags, "--splits=train"])
    imagenet_command.main([*flags, "--overwrite"])
    assert len(names(tmp_path / "data/own/original/1.0.0")) == 3


def test_a_set_of_an_earlier_release_is_used_with_a_note(manual_dir, tmp_path, finished, caplog):
    metadata = json.loads((finished / "metadata.json").read_text())
    del metadata["inputs"], metadata["orientation"]
    (finished / "metadata.json").write_text(json.dumps(metadata))
    before = content(finished)
    shrink_list(manual_dir)
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert ml_images.build(manual_dir, tmp_path / "data") == finished
    assert "was built by an earlier release, which did not record its input" in caplog.text
    assert content(finished) == before


def test_drawn_sets_are_what_their_name_says(tmp_path, monkeypatch):
    numbers = {"num_train": 2, "num_val": 1, "size": 32}
    folder = shapes.build(tmp_path, **numbers)
    monkeypatch.setattr("tfds_builders.shapes.shapes_dataset_builder.draw", None)  # not again
    assert shapes.build(tmp_path, **numbers) == folder


def test_no_path_of_the_machine_is_in_a_set(manual_dir, finished):
    for path in finished.iterdir():
        assert str(manual_dir.parent).encode() not in path.read_bytes(), path.name


def test_a_set_that_another_process_finished_meanwhile_is_used(
    manual_dir, finished, tmp_path, monkeypatch, caplog
):
    before = content(finished)
    inode = finished.stat().st_ino
    monkeypatch.setattr(builder.ImageBuilder, "_is_finished", lambda self, folder: False)
    with caplog.at_level(logging.INFO):
        assert ml_images.build(manual_dir, tmp_path / "data") == finished
    assert "another process has just built it" in caplog.text
    assert (content(finished), finished.stat().st_ino) == (before, inode)
    assert beside(finished) == ["1.0.0"]
    shrink_list(manual_dir)
    with pytest.raises(fingerprint.StaleSetError, match="list of train"):
        ml_images.build(manual_dir, tmp_path / "data")


def test_the_lock_of_a_folder_that_was_removed_is_none(tmp_path, monkeypatch):
    """Its holder finishes between our opening of the lock and our locking it."""
    folder, flock, calls = tmp_path / "1.0.0.unfinished", unfinished.fcntl.flock, []

    def late(lock, mode):
        calls.append(mode)
        if len(calls) == 1:
            shutil.rmtree(folder)
        flock(lock, mode)

    monkeypatch.setattr(unfinished.fcntl, "flock", late)
    with unfinished.locked(folder):
        assert len(calls) == 2 and (folder / "lock").exists()
        with (
            pytest.raises(BlockingIOError, match="another process is building"),
            unfinished.locked(folder),
        ):
            pass


def test_a_full_disk_is_told_before_anything_is_done(manual_dir, tmp_path, monkeypatch):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", lambda **place: Full())
    with pytest.raises(OSError, match=r"No space left on device: .*data cannot be written to"):
        ml_images.build(manual_dir, tmp_path / "data")


# ---------- names and lines

NAMES = {
    "my_set": "my_set", "My pets 2024": "My_pets_2024", "2024": "set_2024", "фото": "set",
    "Fotos für Müller": "Fotos_fur_Muller", "a-b.c": "a_b_c", "..": None,
}  # fmt: skip


@pytest.mark.parametrize(("folder", "name"), NAMES.items())
def test_the_default_name_is_that_of_the_folder(tmp_path, folder, name):
    (tmp_path / "inner").mkdir()
    found = shared_command.name_of(tmp_path / "inner" / folder)
    assert found.isidentifier() and found.isascii()
    assert found == (name or shared_command.name_of(tmp_path))


@pytest.mark.parametrize("folder", ["2024", "my pets", "фото", "_x"])
def test_any_folder_can_be_built_and_read(manual_dir, tmp_path, folder, capsys):
    import tensorflow_datasets as tfds

    manual_dir.rename(tmp_path / folder)
    command.main([f"--manual_dir={tmp_path / folder}", f"--data_dir={tmp_path / 'data'}"])
    built = capsys.readouterr().out.splitlines()[-1]
    assert len(tfds.builder_from_directory(built).as_data_source(split="train")) == len(TRAIN)


def test_two_folders_without_a_name_do_not_meet(manual_dir, tmp_path, capsys):
    other = write_manual_dir(tmp_path / "other")
    shrink_list(other)
    for folder in (manual_dir, other):
        command.main([f"--manual_dir={folder}", f"--data_dir={tmp_path / 'data'}"])
        built = Path(capsys.readouterr().out.splitlines()[-1])
        assert built == tmp_path / "data" / folder.name / "released_320/1.0.0"


def test_a_home_folder_is_that_of_the_shell(manual_dir, tmp_path, capsys, monkeypatch):
    home = tmp_path / "home of me"
    home.mkdir()
    manual_dir.rename(home / "set")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    for words in (
        ["--manual_dir=~/set", "--data_dir=~/data"], ["--manual_dir", "~/set", "--data_dir", "~/d"],
    ):  # fmt: skip
        command.main(words)
        built = Path(capsys.readouterr().out.splitlines()[-1])
        assert built.is_dir() and built.is_relative_to(home)
    assert not (tmp_path / "~").exists()
    with pytest.raises(SystemExit, match="error: ~nobody_here/set: the home folder of"):
        command.main(["--manual_dir=~nobody_here/set", "--data_dir=data"])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--num_shards=0", "num_shards=0 is not a number of files: 1 or more"),
        ("--num_shards=-2", "num_shards=-2 is not a number of files"),
        ("--threads=0", "threads=0 is not a number of threads: 1 or more"),
        ("--max_skipped=nan", "max_skipped=nan is not between 0 and 1"),
        ("--max_skipped=-0.1", "max_skipped=-0.1 is not between"),
        ("--max_skipped=5", "max_skipped=5 is not between"),
    ],
)
def test_numbers_that_mean_nothing_are_refused_before_anything_is_made(
    manual_dir, tmp_path, word, message
):
    with pytest.raises(SystemExit, match=f"error: {message}"):
        command.main([f"--manual_dir={manual_dir}", f"--data_dir={tmp_path / 'data'}", word])
    assert not list(tmp_path.glob("data/**/*.array_record*"))


def test_published_files_keep_their_name(manual_dir, tmp_path, capsys):
    published = manual_dir / "dictionary_and_semantic_hierarchy.txt"
    (manual_dir / "dictionary.txt").rename(published)
    command.main([f"--manual_dir={manual_dir}", f"--data_dir={tmp_path}"])
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / VERSION)


@pytest.mark.slow
def test_what_the_command_prints(manual_dir, tmp_path):
    flags = [f"--manual_dir={manual_dir}", f"--data_dir={tmp_path / 'data'}"]
    module = [sys.executable, "-m", "tfds_builders.ml_images", *flags]
    (manual_dir / "images/grey.jpg").unlink()
    printed = []
    for _ in range(2):
        ran = subprocess.run(module, cwd=REPOSITORY, capture_output=True, text=True, check=True)
        printed.append(ran.stderr)
        assert ran.stdout == f"{tmp_path / 'data/manual/released_320/1.0.0'}\n"
        for word in ("Unknown size", "Downloading", "Generating", "Reusing", "custom data"):
            assert word not in ran.stderr
    assert "images of train 5, val 1; 5 classes; shrunk to 320 pixels, turned upright" in printed[0]
    assert "is complete: images of train 4 (1 skipped), val 1 (0 skipped)" in printed[0]
    assert "already exists with this content: nothing to do" in printed[1]


# ---------- unusable images


def test_a_few_bad_images_do_not_fail_a_small_set(manual_dir, tmp_path):
    rows = [f"{number}.jpg\t0" for number in range(5)]  # which are missing
    (manual_dir / "train_image_list.txt").write_text("\n".join(TRAIN + rows))
    folder = ml_images.build(manual_dir, tmp_path / "data")
    assert len(names(folder)) == len(TRAIN)
    (manual_dir / "train_image_list.txt").write_text("\n".join([*TRAIN, *rows, "5.jpg\t1"]))
    with pytest.raises(ValueError, match="6 of 11 images are unusable"):
        ml_images.build(manual_dir, tmp_path / "data", name="more")
    for strict in (0, 0.02):  # a limit that is set is kept
        with pytest.raises(ValueError, match=f"more than --max-skipped={strict} allows"):
            ml_images.build(manual_dir, tmp_path / "data", name="strict", max_skipped=strict)


@pytest.mark.parametrize(
    ("rows", "fraction", "expected"),
    [(10, 0.01, 5), (500, 0.01, 5), (501, 0.01, 5.01), (1_000_000, 0.01, 10_000), (10, 0, 0),
     (200, 0.5, 100), (20, 0.1, 2)],
)  # fmt: skip
def test_how_many_may_be_unusable(rows, fraction, expected):
    assert skipped.allowed(rows, fraction) == pytest.approx(expected)


def test_the_count_is_of_the_whole_set(manual_dir, tmp_path):
    """Not of the shards up to the one where it was too much, nor of one split."""
    rows = [f"{number}.jpg\t0" for number in range(20)]
    (manual_dir / "images/7.jpg").write_bytes(image_files.HTML)
    (manual_dir / "train_image_list.txt").write_text("\n".join(rows + TRAIN))
    (manual_dir / "val_image_list.txt").write_text("absent.jpg\t0\nb/red.jpg\t1\n")
    message = (
        r"split train: 20 of 25 images are unusable \(19 missing, 1 not_an_image\); "
        r"split val: 1 of 2 images are unusable \(1 missing\)\."
    )
    with pytest.raises(ValueError, match=message) as error:
        ml_images.build(manual_dir, tmp_path / "data", num_shards=5)
    listed = tmp_path / "data/ml_images/released_320/1.0.0.skipped.tsv"
    assert str(listed) in str(error.value)
    assert len(listed.read_text().splitlines()) == 1 + 21
