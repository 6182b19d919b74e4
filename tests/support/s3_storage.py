# SPDX-License-Identifier: BSD-3-Clause
"""Amazon S3's API on 127.0.0.1, as far as its clients in pyarrow and s3fs need it for data sets."""

import contextlib
import datetime
import hashlib
import http.server
import os
import re
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

from tests.support.serving import serving

_XML = '<?xml version="1.0" encoding="UTF-8"?>'
MARKER = "folder-marker"  # the file that stands for an object whose name ends in a slash


class Storage:
    """Serves the files below a folder as the objects of s3://bucket.

    Attributes:
        url: where it listens.
        fail: called with method and name of a request; True answers it with an error.
    """

    def __init__(self, folder: Path, url: str):
        self.folder, self.url = folder, url
        self.fail = lambda method, name: False
        self.lock = threading.Lock()  # an object is there as a whole or not at all
        self.begun: dict[str, dict[int, bytes]] = {}  # uploads in several parts

    def variables(self) -> dict[str, str]:
        """Environment variables that lead s3:// here."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "none",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def environment(self) -> dict[str, str]:
        """For a process in which s3:// leads here; one of its own, as clients are kept."""
        proxies = ("http_proxy", "https_proxy", "all_proxy")
        kept = {name: value for name, value in os.environ.items() if name.lower() not in proxies}
        return kept | self.variables()

    def path(self, name: str) -> Path:
        """The file of an object."""
        return self.folder / (name + MARKER if name.endswith("/") else name)

    def write(self, name: str, data: bytes) -> str:
        """Makes or replaces an object; returns its entity tag."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return _tag(data)

    def names(self, prefix: str) -> list[str]:
        """Names of the objects that begin with a prefix."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        found = [path.relative_to(self.folder).as_posix() for path in files]
        return sorted(
            name for one in found if (name := one.removesuffix(MARKER)).startswith(prefix)
        )

    def listing(self, query: dict[str, str]) -> str:
        """The answer to ListObjectsV2, in pages of as many as the client wants."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        entries: dict[str, str] = {}
        for name in self.names(prefix):
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                folder = prefix + rest.partition(delimiter)[0] + delimiter
                text = f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
                entries[folder] = text
            else:
                entries[name] = f"<Contents>{_described(name, self.path(name))}</Contents>"
        after = query.get("continuation-token") or query.get("start-after", "")
        left = [name for name in sorted(entries) if name > after]
        page = left[: int(query.get("max-keys", 1000))]
        more = len(page) < len(left)
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        return (
            f"{_XML}<ListBucketResult><Name>bucket</Name><Prefix>{escape(prefix)}</Prefix>"
            f"<KeyCount>{len(page)}</KeyCount><IsTruncated>{str(more).lower()}</IsTruncated>{token}"
            f"{''.join(entries[name] for name in page)}</ListBucketResult>"
        )


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Storage]:
    """Serves a folder as s3://bucket until the block ends."""
    folder.mkdir(exist_ok=True)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.storage = Storage(folder, f"http://127.0.0.1:{server.server_address[1]}")
    with serving(server):
        yield server.storage


def _tag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def _time(path: Path) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)


def _described(name: str, path: Path) -> str:
    return (
        f"<Key>{escape(name)}</Key><LastModified>{_time(path):%Y-%m-%dT%H:%M:%S.000Z}"
        f"</LastModified><Size>{path.stat().st_size}</Size>"
        f"<ETag>{escape(_tag(path.read_bytes()))}</ETag><StorageClass>STANDARD</StorageClass>"
    )


def _unchunked(data: bytes) -> bytes:
    """The content of a body in AWS' chunks: a size, a content and a checksum each."""
    content = b""
    while data:
        head, _, rest = data.partition(b"\r\n")
        size = int(head.partition(b";")[0], 16)
        if not size:
            break
        content += rest[:size]
        data = rest[size + 2 :]
    return content


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _begin(self) -> tuple[str | None, dict[str, str], bytes]:
        """Name ("" for the bucket, None for another), query and body of a request."""
        body = self._body()
        if "aws-chunked" in self.headers.get("Content-Encoding", ""):
            body = _unchunked(body)
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        match = re.fullmatch(r"/bucket(?:/(.*))?", urllib.parse.unquote(url.path), re.DOTALL)
        name = (match[1] or "") if match else None
        return name, query, body

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers
            pass
        return body

    def do_GET(self):
        name, query, _ = self._begin()
        storage = self.server.storage
        with storage.lock:
            if name is None:
                return self._error(404, "NoSuchBucket")
            if not name and "location" in query:
                return self._send(200, f"{_XML}<LocationConstraint></LocationConstraint>")
            if not name:
                return self._send(200, "" if self.command == "HEAD" else storage.listing(query))
            if storage.fail(self.command, name):
                return self._error(500, "InternalError")
            path = storage.path(name)
            if not path.is_file():
                return self._error(404, "NoSuchKey")
            data = path.read_bytes()
            headers = {"ETag": _tag(data), "Last-Modified": f"{_time(path):%a, %d %b %Y %T GMT}"}
        return self._bytes(data, headers | {"Accept-Ranges": "bytes"})

    def do_HEAD(self):
        self.do_GET()

    def do_PUT(self):
        name, query, data = self._begin()
        storage = self.server.storage
        with storage.lock:
            if not name:
                return self._error(404, "NoSuchBucket")
            if storage.fail("PUT", name):
                return self._error(500, "InternalError")
            if "uploadId" in query:
                storage.begun[query["uploadId"]][int(query["partNumber"])] = data
                return self._send(200, "", {"ETag": _tag(data)})
            if self.headers.get("If-None-Match") == "*" and storage.path(name).exists():
                return self._error(412, "PreconditionFailed")
            return self._send(200, "", {"ETag": storage.write(name, data)})

    def do_POST(self):
        """Begins or ends an upload in parts, or deletes many objects."""
        name, query, data = self._begin()
        storage = self.server.storage
        with storage.lock:
            if not name and "delete" in query:
                for key in re.findall(r"<Key>(.*?)</Key>", data.decode()):
                    storage.path(key).unlink(missing_ok=True)
                return self._send(200, f"{_XML}<DeleteResult></DeleteResult>")
            if not name or storage.fail("POST", name):
                return self._error(500, "InternalError")
            inside = f"<Bucket>bucket</Bucket><Key>{escape(name)}</Key>"
            if "uploads" in query:
                number = str(len(storage.begun))
                storage.begun[number] = {}
                text = f"{inside}<UploadId>{number}</UploadId>"
                kind = "InitiateMultipartUploadResult"
            else:
                parts = storage.begun[query["uploadId"]]
                tag = storage.write(name, b"".join(parts[number] for number in sorted(parts)))
                text, kind = f"{inside}<ETag>{escape(tag)}</ETag>", "CompleteMultipartUploadResult"
            return self._send(200, f"{_XML}<{kind}>{text}</{kind}>")

    def do_DELETE(self):
        name, query, _ = self._begin()
        with self.server.storage.lock:
            if "uploadId" in query:
                self.server.storage.begun.pop(query["uploadId"], None)
            elif name:
                self.server.storage.path(name).unlink(missing_ok=True)
        return self._send(204, "")

    def _bytes(self, data: bytes, headers: dict[str, str]):
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            return self._send(200, data, headers)
        if wanted[1]:
            first, end = int(wanted[1]), min(int(wanted[2] or len(data)) + 1, len(data))
        else:
            first, end = max(0, len(data) - int(wanted[2])), len(data)
        if first >= end:
            return self._error(416, "InvalidRange")
        place = {"Content-Range": f"bytes {first}-{end - 1}/{len(data)}"}
        return self._send(206, data[first:end], headers | place)

    def _error(self, status: int, code: str):
        self._send(status, f"{_XML}<Error><Code>{code}</Code><Message>{code}</Message></Error>")

    def _send(self, status: int, body: bytes | str, headers: dict[str, str] | None = None):
        data = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        kind = {"Content-Type": "application/xml"} if isinstance(body, str) else {}
        for name, value in {"Content-Length": str(len(data)), **kind, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(ConnectionError):  # a reader that has enough hangs up
                self.wfile.write(data)
