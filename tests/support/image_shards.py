# SPDX-License-Identifier: BSD-3-Clause
"""Image shards of a few rows, whose images are short texts unless contents are given."""

import hashlib

from mlimages_jax.files.object_folder import ObjectFolder
from mlimages_jax.image_shards.outcome import FAILED, OK, Image
from mlimages_jax.image_shards.writer import OpenShard


def content_of(name):
    return f"image {name}".encode("utf-8", "replace")


def ok(name, content=None, time=1.0, file=None):
    content = content_of(name) if content is None else content
    return Image(
        name=name, status=OK, time=time, file=file or f"{name}.jpg", num_bytes=len(content),
        sha256=hashlib.sha256(content).digest(),
    )  # fmt: skip


def failed(name, time=1.0, **fields):
    return Image(name=name, status=FAILED, time=time, error="http_404", message="gone", **fields)


def write(place, tmp_path, images, stem="a-0", contents=None):
    """Writes a shard; the content of an image is `content_of` its name."""
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    shard = OpenShard(scratch, stem)
    for image in images:
        content = (contents or {}).get(image.name, content_of(image.name))
        shard.add(image, content if image.status == OK else None)
    shard.commit(ObjectFolder(place))
    assert not list(scratch.iterdir())
