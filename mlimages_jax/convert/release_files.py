# SPDX-License-Identifier: BSD-3-Clause
"""Fetches the checkpoints and class lists of the original release from where it says they are.

The addresses are those of the release's README (github.com/Tencent/tencent-ml-images, section
Checkpoints). The checkpoints are on cloud drives, which may ask for a browser, and the README gives
neither size nor digest: the digest of the first download is recorded beside it and compared from
then on, and every variable has a checksum of its own.
"""

import hashlib
import re
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Literal, NamedTuple

from mlimages_jax.convert import ConvertError
from mlimages_jax.files.atomic import complete_file
from mlimages_jax.files.checksums import sha256
from mlimages_jax.files.resumable_download import DownloadError, WebPageError, download

Name = Literal["mlimages", "imagenet"]

LISTS = "https://raw.githubusercontent.com/Tencent/tencent-ml-images/master/data"
_DRIVE = "https://drive.usercontent.google.com/download?export=download&confirm=t&id="
_MAX_BYTES = 4 << 30  # of an archive, and of what is in it; the parameters take 0.26 GB
_MAX_LIST_BYTES = 4 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PART = re.compile(r"checkpoint|.+\.(index|meta|data-\d{5}-of-\d{5})")


class ReleaseFile(NamedTuple):
    """A checkpoint of the release, and its classes.

    Attributes:
        file: Its name in the README.
        drive: Its id on Google Drive.
        pages: Pages for a browser.
        classes: File name of the class list.
        classes_sha256: SHA-256 of the list, as it is in the release's repository.
    """

    file: str
    drive: str
    pages: tuple[str, str]
    classes: str
    classes_sha256: str


RELEASE: dict[Name, ReleaseFile] = {
    "mlimages": ReleaseFile(
        file="ckpt-resnet101-mlimages",
        drive="1FKkw2HD0jrCJKOM_kpyOvZ_m_YPA9tdV",
        pages=(
            "https://drive.google.com/open?id=1FKkw2HD0jrCJKOM_kpyOvZ_m_YPA9tdV",
            "https://pan.baidu.com/s/1166673BNWuIeWxD7lf6RNA",
        ),
        classes="dictionary_and_semantic_hierarchy.txt",
        classes_sha256="4271c1bd49405c1453021a38039343bd810d8dc3a0fab23941fb286d528d45ce",
    ),
    "imagenet": ReleaseFile(
        file="ckpt-resnet101-mlimages-imagenet",
        drive="1wIhRemoPxTw7uDz-TlwfYJsOR2usb2kg",
        pages=(
            "https://drive.google.com/open?id=1wIhRemoPxTw7uDz-TlwfYJsOR2usb2kg",
            "https://pan.baidu.com/s/1UE7gavcVznYVA5NZ-GFAvg",
        ),
        classes="imagenet2012_dictionary.txt",
        classes_sha256="fc1d13803bffa394918803a31f7400480aef62cdb5726cced2f6bc75f997b024",
    ),
}


def fetch(
    name: Name, folder: Path, *, url: str | None = None, expect_sha256: str | None = None
) -> tuple[Path, Path]:
    """Fetches a checkpoint and its class list, unless the folder has them.

    Args:
        name: Which one.
        folder: Folder for the files; created.
        url: Address of the archive to use instead of the release's.
        expect_sha256: SHA-256 of the archive; None compares with the recorded one, if there is one.

    Returns:
        The folder of the unpacked checkpoint, and the class list.

    Raises:
        ConvertError: A file cannot be fetched or is another one; says what to do by hand.
    """
    release = RELEASE[name]
    if expect_sha256 is not None and not _SHA256.fullmatch(expect_sha256.lower()):
        raise ConvertError(f"--expect-sha256={expect_sha256}: give 64 hexadecimal digits")
    archive = folder / release.file
    if not archive.exists():
        _download(url or f"{_DRIVE}{release.drive}", archive, release)
    _check(archive, expect_sha256 and expect_sha256.lower())
    unpacked = folder / f"{release.file}.unpacked"
    if not unpacked.exists():
        _unpack(archive, unpacked, release)
    return unpacked, _class_list(folder, release)


def _download(url: str, archive: Path, release: ReleaseFile) -> None:
    print(f"{url} -> {archive}")
    try:
        download(url, archive, max_bytes=_MAX_BYTES)
    except WebPageError as error:
        raise ConvertError(f"{error}: it wants a browser. {_by_hand(archive, release)}") from error
    except DownloadError as error:
        raise ConvertError(f"{error}. Or: {_by_hand(archive, release)}") from error


def _by_hand(archive: Path, release: ReleaseFile) -> str:
    return (
        f"Open {release.pages[0]} or {release.pages[1]}, save the file as {archive}, and run the "
        "same command again; if you unpack it yourself, give --checkpoint=FOLDER instead of --fetch"
    )


def _check(archive: Path, expected: str | None) -> None:
    """Compares the digest with the expected and the recorded one; records it if there is none."""
    found, size = sha256(archive), archive.stat().st_size
    record = archive.with_name(f"{archive.name}.sha256")
    recorded = record.read_text().partition(" ")[0] if record.exists() else None
    for wanted, source in ((expected, "--expect-sha256"), (recorded, str(record))):
        if wanted and wanted != found:
            raise ConvertError(
                f"{archive} ({size:,} bytes) has the SHA-256 {found}, but {source} says {wanted}: "
                f"remove {archive} and run the same command again, or find out which is right"
            )
    if recorded is None:
        with complete_file(record) as unfinished:
            unfinished.write_text(f"{found}  {archive.name}\n")
        print(f"{size:,} bytes, SHA-256 {found}, recorded in {record}; give --expect-sha256={found}"
              " elsewhere")  # fmt: skip


def _unpack(archive: Path, unpacked: Path, release: ReleaseFile) -> None:
    """Writes the files of a checkpoint in an archive to one folder, by their last names."""
    unfinished = unpacked.with_name(f"{unpacked.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    left = _MAX_BYTES
    try:
        for name, file in _members(archive):
            with file, (unfinished / name).open("wb") as written:
                while block := file.read(1 << 20):
                    left -= len(block)
                    if left < 0:
                        raise ConvertError(f"{archive} unpacks to more than {_MAX_BYTES:,} bytes")
                    written.write(block)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, RuntimeError, ValueError) as error:
        raise ConvertError(
            f"{archive} is damaged: {error}: remove it and fetch it again"
        ) from error
    if not any(unfinished.iterdir()):
        raise ConvertError(
            f"{archive} is no zip or tar archive of a TensorFlow checkpoint. "
            f"{_by_hand(archive, release)}"
        )
    unfinished.replace(unpacked)


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yields last names and contents of the files of a checkpoint."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as files:
            for member in files.infolist():
                name = PurePosixPath(member.filename).name
                if not member.is_dir() and _PART.fullmatch(name):
                    yield name, files.open(member)
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            for entry in tar:
                name = PurePosixPath(entry.name).name
                if entry.isreg() and _PART.fullmatch(name) and (file := tar.extractfile(entry)):
                    yield name, file


def _class_list(folder: Path, release: ReleaseFile) -> Path:
    path = folder / release.classes
    url = f"{LISTS}/{release.classes}"
    if not path.exists():
        try:
            download(url, path, max_bytes=_MAX_LIST_BYTES)
        except DownloadError as error:
            raise ConvertError(
                f"{error}. Or: save {release.classes} of github.com/Tencent/tencent-ml-images as "
                f"{path} and run the same command again"
            ) from error
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != release.classes_sha256:
        raise ConvertError(
            f"{path} is not the list of the release (SHA-256 {found}): remove it and run the same "
            "command again, or give another one with --dictionary"
        )
    return path
