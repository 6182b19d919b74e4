# SPDX-License-Identifier: BSD-3-Clause
import codecs

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlimages_jax.files.text_files import TextFileError, binary_format
from mlimages_jax.labels.lists import LabelListError, read_label_list
from mlimages_jax.prepare import url_lists
from mlimages_jax.prepare.url_lists import UrlPart, UrlRow, count_rows, iter_urls
from tests.support import fuzzing


def read(folder, data):
    path = folder / "urls.txt"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return list(iter_urls([path]))


@pytest.mark.parametrize(
    "row",
    ["https://a.org/1.jpg", "https://a.org/1.jpg\t3:1\t4:0.9", "https://a.org/1.jpg  3:1",
     "https://a.org/1.jpg\t", "https://a.org/1.jpg\tno label at all"],
)  # fmt: skip
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_the_first_column_is_the_url(tmp_path, row, end):
    assert read(tmp_path, row + end) == [UrlRow("https://a.org/1.jpg")]


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        ("ftp://a.org/1.jpg", "bad_url", "urls.txt:2: 'ftp://a.org/1.jpg' is not an http"),
        ("file:///etc/passwd", "bad_url", "not an http or https URL"),
        ("n01440764/n01440764_1.JPEG 0", "bad_url", "not an http or https URL"),
        ("https:///1.jpg", "bad_url", "not an http or https URL"),
        ("https://a.org:port/1.jpg", "bad_url", "is not a valid URL"),
        ("https://[::1/1.jpg", "bad_url", "is not a valid URL"),
        (b"https://a.org/\xff.jpg", "bad_url", "is not a valid URL"),
        (" https://a.org/1.jpg", "bad_row", "urls.txt:2: the row begins with white space"),
        ("https://a.org/1\0.jpg", "bad_row", "urls.txt:2: the line contains a NUL byte"),
        ("\0\0\0", "bad_row", "urls.txt:2: the line contains a NUL byte"),
        ("x" * 70_000, "bad_row", "urls.txt:2: the line has more than"),
    ],
)
def test_a_bad_row_says_where_and_does_not_end_the_list(tmp_path, row, error, message):
    row = row if isinstance(row, bytes) else row.encode()
    rows = read(tmp_path, b"\xef\xbb\xbfhttp://a.org/0\n" + row + b"\n\nhttp://a.org/2\t3:1\n")
    assert [r.error for r in rows] == [None, error, None]
    assert rows[0].url == "http://a.org/0" and rows[2].url == "http://a.org/2"
    assert message in rows[1].message


def test_several_lists_and_their_length(tmp_path):
    for name, text in [("a", "http://a/1\n\nhttp://a/2"), ("b", ""), ("c", "http://a/3\n")]:
        (tmp_path / name).write_text(text)
    paths = [tmp_path / name for name in "abc"]
    assert [row.url for row in iter_urls(paths)] == ["http://a/1", "http://a/2", "http://a/3"]
    assert count_rows(paths) == 4  # an upper bound: blank lines count


def test_every_url_is_in_one_shard():
    urls = [f"https://a.org/{i}.jpg" for i in range(3000)]
    counts = [[UrlPart(part, 3).has(url) for part in range(3)] for url in urls]
    assert all(sum(row) == 1 for row in counts)
    assert all(900 < sum(column) < 1100 for column in zip(*counts, strict=True))
    assert UrlPart.parse("2/8") == UrlPart(2, 8)


@pytest.mark.parametrize("text", ["8/8", "1", "-1/2", "a/b", "1/2/3", "0/0", ""])
def test_a_shard_that_does_not_exist(text):
    with pytest.raises(ValueError, match="write i/n with i from 0 to n - 1"):
        UrlPart.parse(text)


def check_any_bytes(folder, data):
    """What the label list's reader takes as names and is a URL, comes as that URL."""
    try:
        rows = read(folder, data)
    except TextFileError as error:
        if "UTF-16" in str(error) or "UTF-32" in str(error):
            assert b"\0" in data[:4] or data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        else:
            assert binary_format(data)
        return
    assert all((row.error is None) == (row.message is None) for row in rows)
    try:
        names = [row.name for row in read_label_list(folder / "urls.txt", num_classes=10)]
    except LabelListError:
        return
    good = [row.url for row in rows if row.error is None]
    assert good == [name for name in names if name in good]
    assert len(rows) == len(names)


LINES = st.lists(
    st.sampled_from([b"http://a.org/1.jpg", b"https://b/2", b"x", b"3:1", b"\xff", b"http://["])
    | st.binary(max_size=12),
    max_size=4,
).map(b"\t".join)
FILES = st.lists(LINES, max_size=5).map(b"\n".join)
QUICK = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@QUICK
@given(FILES)
def test_any_bytes_are_read(tmp_path, data):
    check_any_bytes(tmp_path, data)


@pytest.mark.slow
@settings(QUICK, max_examples=fuzzing.fraction(10_000))
@given(FILES)
def test_any_bytes_are_read_thoroughly(tmp_path, data):
    check_any_bytes(tmp_path, data)


def test_the_published_list(tencent_dir):
    rows = list(iter_urls([tencent_dir / "train_urls_tiny.txt"]))
    assert len(rows) == 100 and all(row.error is None for row in rows)
    assert url_lists.count_rows([tencent_dir / "train_urls_tiny.txt"]) == 100


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_lists_of_all_systems(tmp_path, line_end):
    path = tmp_path / "urls.txt"
    rows = ["\ufeffhttp://a.org/1.jpg\t3:1", "http://a.org/2.jpg"]
    path.write_bytes(line_end.join(rows).encode())
    assert [row.url for row in iter_urls([path])] == ["http://a.org/1.jpg", "http://a.org/2.jpg"]
    assert count_rows([path]) == 2
    path.write_bytes("http://a.org/1.jpg\n".encode("utf-16"))
    with pytest.raises(TextFileError, match=r"urls\.txt: the file is UTF-16 text: save it"):
        list(iter_urls([path]))
