# SPDX-License-Identifier: BSD-3-Clause
"""The release's files from a server on this machine; no test asks the real hosts."""

import hashlib
import io
import tarfile
import zipfile

import pytest

from mlimages_jax.checkpoints import manager
from mlimages_jax.convert import ConvertError, release_files
from mlimages_jax.convert.from_tensorflow import from_tensorflow
from mlimages_jax.convert.tensorflow_checkpoint import write_checkpoint
from tests.support import file_server, original_checkpoint

LIST = "".join(f"{i}\tclass {i}\n" for i in range(original_checkpoint.CLASSES)).encode()
NAME = "ckpt-resnet101-mlimages"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Files of a checkpoint by name."""
    folder = tmp_path_factory.mktemp("tf")
    write_checkpoint(folder / "model.ckpt", original_checkpoint.of_train_py())
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _zip(files) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"ckpt/{name}", content)
        archive.writestr("../../evil.index.py", b"no part of a checkpoint")
    return out.getvalue()


def _tar(files) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"../{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        link = tarfile.TarInfo("other.index")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return out.getvalue()


@pytest.fixture
def server(checkpoint, monkeypatch):
    release = release_files.RELEASE["mlimages"]
    monkeypatch.setitem(
        release_files.RELEASE,
        "mlimages",
        release._replace(classes_sha256=hashlib.sha256(LIST).hexdigest()),
    )
    files = {"archive": _zip(checkpoint), release.classes: LIST}
    with file_server.running(files) as found:
        monkeypatch.setattr(release_files, "LISTS", found.url)
        monkeypatch.setattr(release_files, "_DRIVE", f"{found.url}/archive?id=")
        yield found


def _fetch(tmp_path, **options):
    return release_files.fetch("mlimages", tmp_path / "downloads", **options)


def test_a_fetched_checkpoint_is_converted_with_its_classes(server, tmp_path, capsys):
    from_tensorflow(fetch="mlimages", output=tmp_path / "w", downloads=tmp_path / "d")
    assert manager.load(tmp_path / "w")["step"] == original_checkpoint.STEP
    assert (tmp_path / "w" / "dictionary.txt").read_bytes() == LIST
    digest = hashlib.sha256(server.files["archive"]).hexdigest()
    assert f"SHA-256 {digest}, recorded in" in capsys.readouterr().out
    assert (tmp_path / "d" / f"{NAME}.sha256").read_text() == f"{digest}  {NAME}\n"


def test_what_is_there_is_not_fetched_again(server, tmp_path):
    first = _fetch(tmp_path)
    server.files.clear()
    assert _fetch(tmp_path) == first


@pytest.mark.parametrize("pack", [_zip, _tar])
def test_only_files_of_a_checkpoint_leave_an_archive(server, checkpoint, tmp_path, pack):
    server.files["archive"] = pack(checkpoint)
    folder, _ = _fetch(tmp_path)
    assert {path.name for path in folder.iterdir()} == checkpoint.keys()
    assert {path.name for path in tmp_path.iterdir()} == {"downloads"}


def test_digests_are_compared(server, tmp_path):
    with pytest.raises(ConvertError, match="--expect-sha256=12: give 64 hexadecimal digits"):
        _fetch(tmp_path, expect_sha256="12")
    with pytest.raises(ConvertError, match=r"but --expect-sha256 says 0{64}: remove"):
        _fetch(tmp_path, expect_sha256="0" * 64)
    digest = hashlib.sha256(server.files["archive"]).hexdigest()
    _fetch(tmp_path, expect_sha256=digest.upper())
    (tmp_path / "downloads" / NAME).write_bytes(b"another")
    with pytest.raises(ConvertError, match=rf"{NAME}.sha256 says {digest}"):
        _fetch(tmp_path)


def test_a_host_that_wants_a_browser_is_explained(server, tmp_path):
    server.html = True
    with pytest.raises(ConvertError) as caught:
        _fetch(tmp_path)
    text = str(caught.value)
    for part in (
        "it wants a browser", "drive.google.com/open?id=", "pan.baidu.com/s/",
        f"save the file as {tmp_path / 'downloads' / NAME}", "give --checkpoint=FOLDER",
    ):  # fmt: skip
        assert part in text
    assert "\n" not in text
    (tmp_path / "downloads").mkdir(exist_ok=True)
    (tmp_path / "downloads" / NAME).write_bytes(server.files["archive"])
    server.html = False
    assert _fetch(tmp_path)[0].is_dir(), "a file that was saved by hand is taken"


def test_other_files_are_refused(server, tmp_path, monkeypatch):
    server.files["archive"] = b"Rar!\x1a\x07\x01\x00"
    with pytest.raises(ConvertError, match="is no zip or tar archive of a TensorFlow checkpoint"):
        _fetch(tmp_path)
    with pytest.raises(ConvertError, match=r"HTTP 404.*save the file as"):
        release_files.fetch("mlimages", tmp_path / "b", url=f"{server.url}/nothing")


def test_a_list_that_is_not_the_releases_is_refused(server, tmp_path):
    server.files["dictionary_and_semantic_hierarchy.txt"] = LIST + b"\n"
    with pytest.raises(ConvertError, match="is not the list of the release"):
        _fetch(tmp_path)


def test_an_archive_that_unpacks_to_too_much_is_refused(server, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(release_files, "_MAX_BYTES", 30_000)
    server.files["archive"] = _tar({"a.index": bytes(1 << 20)})
    assert len(server.files["archive"]) < 30_000
    with pytest.raises(ConvertError, match="unpacks to more than 30,000 bytes"):
        _fetch(tmp_path)


def test_one_source_is_needed(tmp_path):
    with pytest.raises(ConvertError, match="give --checkpoint, or --fetch"):
        from_tensorflow(output=tmp_path / "w")
    with pytest.raises(ConvertError, match="not both"):
        from_tensorflow(output=tmp_path / "w", checkpoint=tmp_path, fetch="mlimages")
