# SPDX-License-Identifier: BSD-3-Clause
import random

import pytest

from mlimages_jax.files import resumable_download
from mlimages_jax.files.resumable_download import DownloadError, WebPageError, download
from tests.support import file_server

CONTENT = random.Random(0).randbytes(50_000)
MAX = 1 << 20


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(resumable_download, "PAUSE", 0.0)
    with file_server.running({"file": CONTENT}) as found:
        yield found


def _quiet(_: str) -> None:
    pass


def test_a_broken_connection_goes_on_where_it_broke(server, tmp_path):
    server.break_after = [20_000, 10_000]
    said = []
    download(f"{server.url}/file", tmp_path / "x", max_bytes=MAX, tell=said.append)
    assert (tmp_path / "x").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=20000-", "bytes=30000-"]
    assert len(said) == 2
    assert "resuming at byte 20,000" in said[0]
    assert [path.name for path in tmp_path.iterdir()] == ["x"], "nothing else is left"


def test_the_next_call_goes_on_too(server, tmp_path):
    server.break_after = [30_000] + [0] * resumable_download.ATTEMPTS
    with pytest.raises(DownloadError, match=r"run the same command again.*at byte 30,000"):
        download(f"{server.url}/file", tmp_path / "x", max_bytes=MAX, tell=_quiet)
    assert not (tmp_path / "x").exists()
    server.ranges.clear()
    server.break_after.clear()
    download(f"{server.url}/file", tmp_path / "x", max_bytes=MAX)
    assert server.ranges == ["bytes=30000-"]
    assert (tmp_path / "x").read_bytes() == CONTENT


@pytest.mark.parametrize("honours", [True, False])
def test_a_file_that_changed_is_fetched_from_its_start(server, tmp_path, honours):
    """Whether the server notices by If-Range or, having no ETag, by another size only."""
    server.has_etag = honours
    server.break_after = [30_000] + [0] * resumable_download.ATTEMPTS
    with pytest.raises(DownloadError):
        download(f"{server.url}/file", tmp_path / "x", max_bytes=MAX, tell=_quiet)
    server.break_after = []
    server.files["file"] = other = CONTENT[::-1] if honours else CONTENT[::-1][:45_000]
    download(f"{server.url}/file", tmp_path / "x", max_bytes=MAX, tell=_quiet)
    assert (tmp_path / "x").read_bytes() == other


def test_a_server_without_ranges_sends_it_all_again(server, tmp_path):
    server.has_ranges = False
    server.break_after = [20_000]
    download(f"{server.url}/file", tmp_path / "x", max_bytes=MAX, tell=_quiet)
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_what_is_refused(server, tmp_path):
    server.html = True
    with pytest.raises(WebPageError, match="a web page instead of a file"):
        download(f"{server.url}/file", tmp_path / "x", max_bytes=MAX)
    server.html = False
    with pytest.raises(DownloadError, match="50,000 bytes, more than 49,999"):
        download(f"{server.url}/file", tmp_path / "x", max_bytes=49_999)
    with pytest.raises(DownloadError, match="HTTP 404"):
        download(f"{server.url}/nothing", tmp_path / "x", max_bytes=MAX)
    server.status = 503
    with pytest.raises(DownloadError, match="HTTP 503"):
        download(f"{server.url}/file", tmp_path / "x", max_bytes=MAX, tell=_quiet)
