# SPDX-License-Identifier: BSD-3-Clause
"""One rule for orientation: what sets store of images with EXIF data, of every kind."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.images import jpeg
from mlimages_jax.data.images.decode import decode, stored_jpeg
from mlimages_jax.data.images.header import BadImage
from mlimages_jax.data.records import DataSetError
from mlimages_jax.prepare.storing import Expected, store
from tests.support import image_files
from tests.support.five_classes import CLASS_LIST
from tests.tfds_builders.built_set import records
from tfds_builders import imagenet, ml_images
from tfds_builders.imagenet import __main__ as imagenet_command
from tfds_builders.ml_images import __main__ as ml_images_command

UPRIGHT = {  # what undoes each orientation, by the words of EXIF 2.32, tag 274
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image.swapaxes(0, 1)[::-1, ::-1],
    8: lambda image: np.rot90(image),
}
FORMATS = {
    "jpeg": {"quality": 95, "subsampling": 0},
    "progressive": {"quality": 95, "subsampling": 0, "progressive": True},
    "png": {},
    "webp": {"lossless": True},
    "tiff": {},
}


def tagged(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    name = "JPEG" if kind == "progressive" else kind.upper()
    return image_files.by_pillow(name, exif=exif, **FORMATS[kind])


def orientation_of(data: bytes) -> int:
    with Image.open(io.BytesIO(data)) as image:
        return image.getexif().get(0x0112, 1)


def near(pixels: np.ndarray, expected: np.ndarray) -> bool:
    return pixels.shape == expected.shape and np.abs(pixels.astype(int) - expected).max() < 12


@pytest.fixture(params=["compiled", "not compiled"])
def compiled(request, monkeypatch):
    if request.param == "not compiled":
        monkeypatch.setattr(jpeg, "_jpeg", None)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_all_orientations_of_all_kinds(compiled, kind, orientation):
    data = tagged(kind, orientation)
    try:
        stored_jpeg(data)
    except BadImage as bad:
        pytest.skip(f"{kind}: {bad}")
    as_shown = UPRIGHT[orientation](image_files.quadrants())
    for short_side in (None, 16):
        step = 1 if short_side is None else 2
        turned = stored_jpeg(data, short_side=short_side, sequential=True, orientation="exif")
        assert orientation_of(turned.jpeg) == 1
        assert near(decode(turned.jpeg), as_shown[::step, ::step])
        assert (turned.height, turned.width) == as_shown[::step, ::step].shape[:2]
        kept = stored_jpeg(data, short_side=short_side, sequential=True, orientation="stored")
        assert orientation_of(kept.jpeg) == orientation
        assert near(decode(kept.jpeg), image_files.quadrants()[::step, ::step])
        assert near(decode(kept.jpeg, exif_orientation=True), as_shown[::step, ::step])


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_no_orientation_is_upright(kind, orientation):
    data = tagged(kind, orientation)
    try:
        plain = stored_jpeg(data)
    except BadImage as bad:
        pytest.skip(f"{kind}: {bad}")
    assert stored_jpeg(data, orientation="exif") == plain
    assert near(decode(plain.jpeg), image_files.quadrants())


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, about these data
@pytest.mark.parametrize("at", range(6, 32))
def test_damaged_exif_data_are_an_image_as_it_is_stored(at):
    """Whichever byte of the data is overwritten: some orientation, and never an error."""
    data = bytearray(image_files.exif_jpeg(6))
    data[data.index(b"Exif\0\0") + at] = 0xFE
    stored = stored_jpeg(bytes(data), orientation="exif")
    assert sorted((stored.height, stored.width)) == [32, 64]
    assert near(decode(stored.jpeg), decode(bytes(data), exif_orientation=True))


def test_exif_data_cut_short():
    data = image_files.exif_jpeg(6)
    at = data.index(b"Exif\0\0") + 6
    broken = data[:at] + bytes(len("MM*.")) + data[at + 4 :]
    assert stored_jpeg(broken, orientation="exif").jpeg == broken


def test_what_needs_no_turning_keeps_its_bytes():
    for data in (image_files.jpeg(image_files.quadrants()), image_files.exif_jpeg(1)):
        assert stored_jpeg(data, orientation="exif").jpeg == data


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("short_side", [None, 16])
def test_a_download_that_shrinks_loses_no_orientation(tmp_path, orientation, short_side):
    """And applies it at no place twice: built from what arrived, as from the file itself."""
    data = tagged("jpeg", orientation)
    (tmp_path / "unfinished").write_bytes(data)
    path = tmp_path / "image.jpg"
    store(tmp_path / "unfinished", path, expected=Expected(), short_side=short_side)
    as_shown = UPRIGHT[orientation](image_files.quadrants())
    step = 1 if short_side is None else 2
    assert near(decode(path.read_bytes(), exif_orientation=True), as_shown[::step, ::step])
    built = stored_jpeg(path.read_bytes(), orientation="exif")
    assert near(decode(built.jpeg), as_shown[::step, ::step])


def write_lists(folder: Path) -> Path:
    (folder / "images").mkdir(parents=True)
    (folder / "dictionary.txt").write_text(CLASS_LIST)
    (folder / "images/1.jpg").write_bytes(image_files.exif_jpeg(6))
    (folder / "train_image_list.txt").write_text("1.jpg\t0\n")
    return folder


def write_classes(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / "train" / name).mkdir(parents=True)
        (folder / "train" / name / "1.jpg").write_bytes(image_files.exif_jpeg(6))
    return folder


def test_sets_of_lists_are_turned_unless_told_not_to(tmp_path, capsys):
    manual_dir = write_lists(tmp_path / "mine")
    turned = ml_images.build(manual_dir, tmp_path)
    (record,) = records(turned, "train")
    assert (record["height"], record["width"]) == (64, 32)
    assert json.loads((turned / "metadata.json").read_text())["orientation"] == "exif"
    assert DataSet.open(turned).orientation == "exif"

    flags = [f"--manual_dir={manual_dir}", f"--data_dir={tmp_path / 'data'}"]
    ml_images_command.main([*flags, "--orientation=stored"])
    stored = Path(capsys.readouterr().out.splitlines()[-1])
    assert stored == tmp_path / "data/mine/released_320_stored/1.0.0"
    (record,) = records(stored, "train")
    assert record["image"] == image_files.exif_jpeg(6)
    assert DataSet.open(stored).orientation == "stored"
    with pytest.raises(ValueError, match="orientation='up' is neither 'exif' nor 'stored'"):
        ml_images.build(manual_dir, tmp_path, orientation="up")


def test_imagenet_stays_as_stored_and_own_classes_are_turned(tmp_path):
    wordnet = write_classes(tmp_path / "wordnet", "n01440764", "n01484850")
    own = write_classes(tmp_path / "own", "n01440764", "cat")
    options = {"splits": ["train"]}
    for folder, name, expected, other in (
        (wordnet, "original", "stored", "exif"),
        (own, "original", "exif", "stored"),
    ):
        for orientation in (None, other):
            built = imagenet.build(
                folder, tmp_path / "data", name=folder.name, orientation=orientation, **options
            )
            suffix = f"_{orientation}" if orientation else ""
            assert built.parent.name == f"{name}{suffix}"
            assert DataSet.open(built).orientation == (orientation or expected)
            sizes = {(one["height"], one["width"]) for one in records(built, "train")}
            assert sizes == {(64, 32) if (orientation or expected) == "exif" else (32, 64)}


def test_the_command_of_folders(tmp_path, capsys):
    own = write_classes(tmp_path / "my pets 2024", "cat", "dog")
    flags = [f"--manual_dir={own}", f"--data_dir={tmp_path}", "--splits=train"]
    imagenet_command.main([*flags, "--orientation=stored"])
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    assert folder == tmp_path / "my_pets_2024/original_stored/1.0.0"
    assert DataSet.open(folder).orientation == "stored"


def test_sets_of_earlier_releases_and_damaged_metadata(tmp_path):
    folder = ml_images.build(write_lists(tmp_path / "mine"), tmp_path)
    metadata = json.loads((folder / "metadata.json").read_text())
    del metadata["orientation"]
    (folder / "metadata.json").write_text(json.dumps(metadata))
    assert DataSet.open(folder).orientation == "stored"
    (folder / "metadata.json").write_text(json.dumps(metadata | {"orientation": 6}))
    with pytest.raises(DataSetError, match="orientation=6 is neither exif nor stored"):
        DataSet.open(folder)
