# SPDX-License-Identifier: BSD-3-Clause
"""s3:// for fsspec, and so for `epath`, by the S3 client inside of pyarrow.

s3fs is used where it is installed. It is no dependency, because pyarrow is one, and because its
client cannot be installed beside our pins (aiobotocore 3.10 wants python-dateutil below 4).

Credentials, endpoint and region are those of all AWS tools: ~/.aws, AWS_PROFILE, AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_REGION.
"""

import errno
import importlib.util
import io
import os
from typing import Any

import fsspec
from fsspec.implementations.arrow import ArrowFSWrapper

from mlimages_jax.files.interrupts import held_back

_CONNECT_SECONDS = 10.0  # the SDK's second is too short for a machine that starts many processes
_REQUEST_SECONDS = 60.0
_BUFFER = 1 << 20  # bytes a request reads at least


class ArrowS3(ArrowFSWrapper):
    """Buckets of S3 and of whatever speaks its protocol."""

    protocol = ("s3", "s3a")

    def __init__(self, **kwargs: Any):
        from pyarrow import fs  # starts threads of the AWS SDK, in processes that need it only

        scheme, _, host = _endpoint().partition("://")
        client = fs.S3FileSystem(
            connect_timeout=_CONNECT_SECONDS, request_timeout=_REQUEST_SECONDS,
            **({"scheme": scheme, "endpoint_override": host} if host else {}),
        )  # fmt: skip
        super().__init__(client, **kwargs)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        # Not parsed as a URL, in which "#" and "?" of a name would end it.
        return os.fspath(path).rpartition("://")[2].strip("/")

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        file = super()._open(path, mode, **kwargs)
        # Without a buffer every byte of a line is a request.
        return io.BufferedReader(file, _BUFFER) if mode == "rb" else file

    def pipe_file(self, path: str, *args: Any, **kwargs: Any) -> None:
        """Writes an object, to the end even if Ctrl-C comes meanwhile."""
        with held_back():
            super().pipe_file(path, *args, **kwargs)

    def put_file(self, lpath: str, rpath: str, *args: Any, **kwargs: Any) -> None:
        """Uploads a file, to the end even if Ctrl-C comes meanwhile."""
        with held_back():
            super().put_file(lpath, rpath, *args, **kwargs)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Does nothing: a bucket has no folders, and objects that stand for them confuse others."""

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        """Does nothing, see `makedirs`."""


def _endpoint() -> str:
    """Returns the URL of another service than Amazon's, such as http://127.0.0.1:9000, or "".

    Raises:
        OSError: It is no URL.
    """
    # pyarrow's constructor ignores these variables, which other AWS tools follow, in this order.
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if url := os.environ.get(name):
            if not url.startswith(("http://", "https://")):
                raise OSError(errno.EINVAL, f"{name} must begin with http:// or https://", url)
            return url
    return ""


def choose() -> None:
    """Makes s3:// known to fsspec unless s3fs is installed, in this process."""
    if importlib.util.find_spec("s3fs") is None:
        fsspec.register_implementation("s3", ArrowS3, clobber=True)
