# SPDX-License-Identifier: BSD-3-Clause
import pytest

from mlimages_jax.inference.sidecars import sidecar_of, write_sidecar
from mlimages_jax.inference.tag_outputs import TagOutputs
from mlimages_jax.inference.xmp_tags import XmpError

ROW = {"image": "a.jpg", "tags": [{"path": ["animal", "dog, domestic dog"]}]}


class OneImage:
    """Stands for a source whose image never changes."""

    def __init__(self, path):
        self.path = lambda position: path

    def __len__(self):
        return 1

    def identity(self, position):
        return ["a.jpg", 5, 0]


@pytest.fixture
def image(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"image")
    return tmp_path / "a.jpg"


def test_a_sidecar_is_written_once_and_the_image_never(image):
    assert write_sidecar(image, ROW)
    sidecar = image.with_name("a.jpg.xmp")
    assert sidecar == sidecar_of(image)
    assert b"animal|dog<" in sidecar.read_bytes()
    sidecar.chmod(0o640)
    assert not write_sidecar(image, ROW)
    assert not write_sidecar(image, {"image": "a.jpg", "error": "corrupt"})
    assert write_sidecar(image, {"image": "a.jpg", "tags": []})
    assert b"dog" not in sidecar.read_bytes()
    assert sidecar.stat().st_mode & 0o777 == 0o640
    assert image.read_bytes() == b"image"
    assert sorted(path.name for path in image.parent.iterdir()) == ["a.jpg", "a.jpg.xmp"]


def test_without_tags_there_is_no_sidecar(image):
    assert not write_sidecar(image, {"image": "a.jpg", "tags": []})
    assert not sidecar_of(image).exists()


def test_damaged_and_linked_sidecars_are_left_alone(image, tmp_path):
    sidecar_of(image).write_bytes(b"<x:xmpmeta")
    with pytest.raises(XmpError, match="not well-formed"):
        write_sidecar(image, ROW)
    assert sidecar_of(image).read_bytes() == b"<x:xmpmeta"
    sidecar_of(image).unlink()
    (tmp_path / "other").write_bytes(b"")
    sidecar_of(image).symlink_to(tmp_path / "other")
    with pytest.raises(XmpError, match="is a link"):
        write_sidecar(image, ROW)
    assert (tmp_path / "other").read_bytes() == b""


def test_an_image_that_becomes_readable_gets_its_sidecar(image):
    """Its size and time stay the same, as where only a permission was missing."""
    outputs, source = TagOutputs(sidecars=True, by_tag=None, sheet=None), OneImage(image)
    bad = {"image": "a.jpg", "error": "unreadable: Permission denied"}
    assert outputs.update(source, lambda: iter([bad])) == ["0 sidecars written"]
    assert outputs.update(source, lambda: iter([ROW])) == ["1 sidecars written"]
    assert sidecar_of(image).exists()
    sidecar_of(image).unlink()
    assert outputs.update(source, lambda: iter([ROW])) == ["0 sidecars written"], "it is done"
