# SPDX-License-Identifier: BSD-3-Clause
"""Google Cloud Storage's JSON API on 127.0.0.1, as far as data sets and trainings need it."""

import collections
import contextlib
import datetime
import http.server
import json
import os
import re
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from tests.support.serving import serving


class Storage:
    """Serves the files below a folder as the objects of one bucket.

    Attributes:
        url: where it listens.
        reads: how many requests asked for bytes, by object.
    """

    def __init__(self, folder: Path, url: str):
        self.folder, self.url = folder, url
        self.reads: collections.Counter[str] = collections.Counter()
        self.lock = threading.Lock()  # an object is there as a whole or not at all
        self.begun: dict[str, bytes] = {}  # uploads in several parts

    def environment(self) -> dict[str, str]:
        """For a process in which gs:// leads here; one of its own, as clients are kept."""
        proxies = ("http_proxy", "https_proxy", "all_proxy")
        kept = {name: value for name, value in os.environ.items() if name.lower() not in proxies}
        return kept | {
            "CLOUD_STORAGE_EMULATOR_ENDPOINT": self.url,  # of array_record
            "STORAGE_EMULATOR_HOST": self.url,  # of gcsfs
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # asks for a project otherwise
            "GOOGLE_CLOUD_PROJECT": "none",
            "NO_GCE_CHECK": "true",  # and for credentials
        }

    def write(self, name: str, data: bytes) -> dict[str, str] | None:
        """Makes or replaces an object."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return self.describe(name)

    def describe(self, name: str) -> dict[str, str] | None:
        """An object's resource; None where there is none."""
        path = self.folder / name
        if not path.is_file():
            return None
        changed = datetime.datetime.fromtimestamp(int(path.stat().st_mtime), datetime.UTC)
        time = changed.strftime("%Y-%m-%dT%H:%M:%S.000Z")
        return {
            "kind": "storage#object",
            "id": f"bucket/{name}/{path.stat().st_mtime_ns}",
            "name": name,
            "bucket": "bucket",
            "generation": str(path.stat().st_mtime_ns),
            "metageneration": "1",
            "contentType": "application/octet-stream",
            "size": str(path.stat().st_size),
            "timeCreated": time,
            "updated": time,
        }

    def listing(self, prefix: str, *, deep: bool) -> dict[str, object]:
        """The objects and folders right below a prefix, or all objects that begin with it."""
        names = sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*"))
        below = [name for name in names if name.startswith(prefix)]
        if deep:
            return {"items": [item for name in below if (item := self.describe(name))]}
        files = [name for name in below if "/" not in name[len(prefix) :]]
        folders = {prefix + name[len(prefix) :].split("/")[0] + "/" for name in below} - {prefix}
        items = [item for name in files if (item := self.describe(name))]
        named = {f"{item['name']}/" for item in items}
        return {"kind": "storage#objects", "items": items, "prefixes": sorted(folders - named)}


@contextlib.contextmanager
def serve(folder: Path, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[Storage]:
    """Serves a folder as gs://bucket until the block ends."""
    server = http.server.ThreadingHTTPServer((host, port), _Handler)
    server.storage = Storage(folder, f"http://{host}:{server.server_address[1]}")
    with serving(server):
        yield server.storage


def _parts(data: bytes, content_type: str) -> tuple[str, bytes]:
    """Name and content of an upload with its metadata in one request."""
    boundary = b"--" + content_type.partition('boundary="')[2].rstrip('"').encode()
    metadata, _, content = data.removeprefix(boundary).partition(b"\n" + boundary)
    name = json.loads(metadata.partition(b"\n\n")[2])["name"]
    return name, content.partition(b"\n\n")[2].removesuffix(b"\n" + boundary + b"--")


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        storage = self.server.storage
        if match := re.fullmatch(r"(?:/download)?/storage/v1/b/bucket/o/(.+)", url.path):
            name = urllib.parse.unquote(match[1])
            with storage.lock:
                found = storage.describe(name)
                data = (storage.folder / name).read_bytes() if found else b""
            if found and query.get("alt") == "media":
                storage.reads[name] += 1
                self._bytes(data, {"x-goog-generation": found["generation"]})
            else:
                self._json(found)
        elif url.path == "/storage/v1/b/bucket/o":
            deep = not query.get("delimiter")
            with storage.lock:
                self._json(storage.listing(query.get("prefix", ""), deep=deep))
        else:
            self._json({"name": "bucket"} if url.path == "/storage/v1/b/bucket" else None)

    def do_POST(self):
        """An upload at once, the begin or a part of one in several, or a new name for an object."""
        url = urllib.parse.urlsplit(self.path)
        if match := re.fullmatch(r"/storage/v1/b/bucket/o/(.+)/moveTo/o/(.+)", url.path):
            self._move(urllib.parse.unquote(match[1]), urllib.parse.unquote(match[2]))
            return
        query = dict(urllib.parse.parse_qsl(url.query))
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if query.get("uploadType") == "multipart":  # the name and the bytes in one body
            boundary = self.headers["Content-Type"].partition("boundary=")[2].strip('"').encode()
            _, described, content, _ = data.split(b"--" + boundary, 3)
            query |= {
                "uploadType": "media",
                "name": json.loads(described.partition(b"\n\n")[2])["name"],
            }
            data = content.partition(b"\n\n")[2].removesuffix(b"\n")
        storage, name = self.server.storage, query.get("name", "")
        if query.get("uploadType") == "multipart":
            name, data = _parts(data, self.headers["Content-Type"])
        with storage.lock:
            found = storage.describe(name)
            expected = query.get("ifGenerationMatch", found["generation"] if found else "0")
            if url.path != "/upload/storage/v1/b/bucket/o" or not name:
                self._json(None)
            elif expected != (found["generation"] if found else "0"):
                self._send(412, b"{}")
            elif query["uploadType"] in ("media", "multipart"):
                self._json(storage.write(name, data))
            elif query["uploadType"] == "resumable" and "upload_id" not in query:
                number = str(len(storage.begun))
                storage.begun[number] = b""
                self._send(200, b"{}", {"Location": f"{storage.url}{self.path}&upload_id={number}"})
            else:
                storage.begun[query["upload_id"]] += data
                if self.headers["Content-Range"].endswith("/*"):
                    end = len(storage.begun[query["upload_id"]]) - 1
                    self._send(308, b"", {"Range": f"bytes=0-{end}"})
                else:
                    self._json(storage.write(name, storage.begun[query["upload_id"]]))

    def _move(self, name: str, target: str):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        storage = self.server.storage
        with storage.lock:
            if storage.describe(name) is None:
                self._json(None)
                return
            self._json(storage.write(target, (storage.folder / name).read_bytes()))
            (storage.folder / name).unlink()
            with contextlib.suppress(OSError):  # a bucket has no folders: the empty ones go
                for folder in (storage.folder / name).parents:
                    folder.rmdir()

    def do_DELETE(self):
        name = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path.partition("/o/")[2])
        with self.server.storage.lock:
            found = self.server.storage.describe(name)
            if found:
                (self.server.storage.folder / name).unlink()
        self._send(204 if found else 404, b"")

    def _json(self, value):
        missing = {"error": {"code": 404, "message": "Not Found"}}
        self._send(404 if value is None else 200, json.dumps(value or missing).encode())

    def _bytes(self, data: bytes, headers: dict[str, str]):
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            return self._send(200, data, headers)
        if wanted[1]:
            first, end = int(wanted[1]), int(wanted[2] or len(data)) + 1
        else:
            first, end = max(0, len(data) - int(wanted[2])), len(data)
        part = data[first:end]
        if not part:
            return self._send(416, b"")
        place = {"Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(data)}"}
        return self._send(206, part, headers | place)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # a reader that has what it wanted hangs up
            self.wfile.write(body)
