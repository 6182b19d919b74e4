# SPDX-License-Identifier: BSD-3-Clause
import pytest
from etils import epath

from mlimages_jax.files.remote import (
    append_line,
    is_remote,
    read_json_lines,
    write_text,
)
from tests.support import bucket


@pytest.mark.parametrize(("path", "remote"), [("gs://bucket/x", True), ("/gs/x", False)])
def test_a_remote_path_is_a_url(path, remote):
    assert is_remote(path) == remote


@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_a_line_comes_after_those_before(tmp_path, place):
    with bucket.in_folder(tmp_path) as remote:
        file = (remote if place == "bucket" else tmp_path) / "lines.txt"
        for line in ("one", "zwölf", "three"):
            append_line(file, line)
    assert (tmp_path / "lines.txt").read_bytes() == "one\nzwölf\nthree\n".encode()


def test_on_a_disk_nothing_is_written_again(tmp_path, monkeypatch):
    """What stands there cannot be lost, also when the disk is full."""
    path = epath.Path(tmp_path / "lines.txt")
    path.write_text("one\n")
    for name in ("read_bytes", "write_bytes"):
        monkeypatch.setattr(type(path), name, _fail)
    append_line(path, "two")
    assert path.read_text() == "one\ntwo\n"


@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_a_text_takes_the_place_of_another(tmp_path, place):
    with bucket.in_folder(tmp_path) as remote:
        file = (remote if place == "bucket" else tmp_path) / "text.txt"
        for text in ("the first", "zwölf"):
            write_text(file, text)
    assert (tmp_path / "text.txt").read_bytes() == "zwölf".encode()
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_who_reads_during_the_writing_sees_a_whole_text(tmp_path):
    """Another process compares its classes while process 0 writes them."""
    path = tmp_path / "text.txt"
    path.write_text("old")
    with path.open() as reader:
        write_text(path, "new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


def test_an_error_while_reading_leaves_an_object_as_it_was(tmp_path, monkeypatch):
    (tmp_path / "lines.txt").write_text("one\n")
    with bucket.in_folder(tmp_path) as remote:
        monkeypatch.setattr(type(remote), "read_bytes", _fail)
        with pytest.raises(ConnectionError):
            append_line(remote / "lines.txt", "two")
    assert (tmp_path / "lines.txt").read_text() == "one\n"


def _fail(*_):
    raise ConnectionError


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b'{"b": 2}\n'),
        (b'{"a": 1}\n', b'{"a": 1}\n{"b": 2}\n'),
        (b'{"a": 1}\n{"half', b'{"a": 1}\n{"b": 2}\n'),
        (b'{"half', b'{"b": 2}\n'),
        (b'{"a": 1}', b'{"a": 1}\n{"b": 2}\n'),
        (b'{"a": 1}\n{"half": 1', b'{"a": 1}\n{"b": 2}\n'),
        (b'{"a": 1}\n\0\0\0\0', b'{"a": 1}\n{"b": 2}\n'),
        (b'{"a": 1}\n{"half": "' + b"x" * 10_000, b'{"a": 1}\n{"b": 2}\n'),
        (b'{"a": 1}\n{"half": "\xc3', b'{"a": 1}\n{"b": 2}\n'),
    ],
    ids=["no file", "whole", "half", "only half", "no end", "number", "zeros", "long", "utf-8"],
)
def test_half_a_line_is_never_glued_to_the_next(tmp_path, before, after):
    path = tmp_path / "lines.jsonl"
    if before:
        path.write_bytes(before)
    known = list(read_json_lines(path))
    append_line(path, '{"b": 2}')
    assert path.read_bytes() == after
    assert list(read_json_lines(path)) == [*known, {"b": 2}]


def test_readers_pass_over_what_is_no_object(tmp_path):
    path = tmp_path / "lines.jsonl"
    assert list(read_json_lines(path)) == []
    path.write_bytes(b'{"a": 1}\n\n{"a"\n12\nnull\n\xff\n{"b": "\xe2\x80\xa8"}\n')
    assert list(read_json_lines(path)) == [{"a": 1}, {"b": "\u2028"}]
