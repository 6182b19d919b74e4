# SPDX-License-Identifier: BSD-3-Clause
"""A server on this machine that plays the part of the Hugging Face Hub that we use.

It answers what huggingface_hub asks for in create_repo, create_commit (regular and large files),
get_paths_info and hf_hub_download. It keeps commits and large files in memory, and can be told to
break off a download, to send other bytes, or to refuse.
"""

import base64
import contextlib
import hashlib
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_token_of_a_test"


class Hub:
    """The repositories of the server, and what it was asked for.

    Attributes:
        commits: Files by name, by commit, by repository; the last commit is "main".
        blobs: Large files by SHA-256.
        private: Repositories that need TOKEN.
        requests: Method and path of every request, in order.
        ranges: Headers Range of downloads.
        break_after: Bytes after which the next download breaks off; None for never.
        sent: Bytes to send instead of the true ones; None for the true ones.
        lies_about_digest: Whether paths-info reports another digest of large files.
    """

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}
        self.blobs: dict[str, bytes] = {}
        self.private: set[str] = set()
        self.requests: list[tuple[str, str]] = []
        self.ranges: list[str | None] = []
        self.break_after: int | None = None
        self.sent: bytes | None = None
        self.lies_about_digest = False

    def commit(self, repo: str, files: dict[str, bytes]) -> str:
        """Adds a commit; returns its id."""
        commits = self.commits.setdefault(repo, {})
        newest = list(commits.values())[-1] if commits else {}
        name = hashlib.sha1(f"{repo} {len(commits)}".encode()).hexdigest()
        commits[name] = {**newest, **files}
        return name

    def resolve(self, repo: str, revision: str) -> str | None:
        """The commit of a revision."""
        commits = list(self.commits.get(repo, {}))
        if revision == "main":
            return commits[-1] if commits else None
        return revision if revision in commits else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, status: int, value: Any = None, **headers: str) -> None:
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _allowed(self, repo: str) -> bool:
        signed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repo in self.hub.commits and (signed or repo not in self.hub.private):
            return True
        # As the Hub does: it does not tell whether a private repository exists.
        self._answer(404 if signed else 401, X_Error_Code="RepoNotFound")
        return False

    def do_HEAD(self) -> None:
        self._get()

    def do_GET(self) -> None:
        self._get()

    def _get(self) -> None:
        self.hub.requests.append((self.command, self.path))
        path = urllib.parse.unquote(self.path.partition("?")[0])
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            repo, revision = found[1], found[2] or "main"
            if self._allowed(repo):
                commit = self.hub.resolve(repo, revision)
                self._answer(200, {"id": repo, "sha": commit, "siblings": [], "private": False})
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(*found.groups())
        else:
            self._answer(404)

    def _file(self, repo: str, revision: str, name: str) -> None:
        if not self._allowed(repo):
            return
        commit = self.hub.resolve(repo, revision)
        if commit is None:
            self._answer(404, X_Error_Code="RevisionNotFound")
            return
        files = self.hub.commits[repo][commit]
        if name not in files:
            self._answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            return
        content = files[name]
        digest = hashlib.sha256(content).hexdigest()
        if self.hub.sent is not None:
            content = self.hub.sent
        self.send_response(206 if self.headers.get("Range") else 200)
        start = 0
        if asked := self.headers.get("Range"):
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{digest}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if self.command == "HEAD":
            return
        self.hub.ranges.append(asked)
        if self.hub.break_after is not None:
            self.wfile.write(content[start : start + self.hub.break_after])
            self.hub.break_after = None
            self.close_connection = True
            return
        self.wfile.write(content[start:])

    def do_PUT(self) -> None:
        self.hub.requests.append((self.command, self.path))
        content = self._body()
        self.hub.blobs[hashlib.sha256(content).hexdigest()] = content
        self._answer(200)

    def do_POST(self) -> None:
        self.hub.requests.append((self.command, self.path))
        body = self._body()
        path = urllib.parse.unquote(self.path.partition("?")[0])
        if path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401)
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/.+", path):
            files = json.loads(body)["files"]
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs"
                    if file["path"].endswith(("tensors", "onnx"))
                    else "regular",
                    "shouldIgnore": False,
                }
                for file in files
            ]
            self._answer(200, {"files": modes})
        elif path.endswith("/info/lfs/objects/batch"):
            self._answer(200, {"transfer": "basic", "objects": self._large(json.loads(body))})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/.+", path):
            self._commit(found[1], body)
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/paths-info/(.+)", path):
            self._paths(found[1], found[2], urllib.parse.parse_qs(body.decode())["paths"])
        else:
            self._answer(404)

    def _create(self, asked: dict[str, Any]) -> None:
        repo = f"{asked.get('organization')}/{asked['name']}"
        if repo in self.hub.commits:
            self._answer(409, {"url": f"/{repo}"})
            return
        self.hub.commit(repo, {".gitattributes": b"*.safetensors filter=lfs\n"})
        if asked.get("private") or asked.get("visibility") == "private":
            self.hub.private.add(repo)
        self._answer(200, {"url": f"http://{self.headers['Host']}/{repo}"})

    def _large(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        place = f"http://{self.headers['Host']}/blobs"
        return [
            {
                "oid": item["oid"],
                "size": item["size"],
                **(
                    {}
                    if item["oid"] in self.hub.blobs
                    else {"actions": {"upload": {"href": f"{place}/{item['oid']}", "header": {}}}}
                ),
            }
            for item in asked["objects"]
        ]

    def _commit(self, repo: str, body: bytes) -> None:
        files: dict[str, bytes] = {}
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
        commit = self.hub.commit(repo, files)
        url = f"http://{self.headers['Host']}/{repo}/commit/{commit}"
        self._answer(200, {"commitUrl": url, "commitOid": commit, "pullRequestUrl": None})

    def _paths(self, repo: str, revision: str, names: list[str]) -> None:
        files = self.hub.commits[repo][self.hub.resolve(repo, revision) or ""]
        found = []
        for name in names:
            if name in files:
                digest = hashlib.sha256(files[name]).hexdigest()
                size = len(files[name])
                lfs = {"oid": "0" * 64 if self.hub.lies_about_digest else digest, "size": size}
                lfs["pointerSize"] = 130
                found.append(
                    {"type": "file", "path": name, "size": size, "oid": digest[:40], "lfs": lfs}
                )
        self._answer(200, found)


@contextlib.contextmanager
def running() -> Iterator[tuple[Hub, str]]:
    """Yields the hub and its URL, for HF_ENDPOINT."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
