# SPDX-License-Identifier: BSD-3-Clause
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlimages_jax.files.text_files import unix_line_ends, without_mark
from mlimages_jax.labels import lists
from mlimages_jax.labels.image_names import decode_name, encode_name
from mlimages_jax.labels.list_rows import parse_row
from mlimages_jax.labels.lists import (
    LabelList,
    LabelListError,
    LabelListWriter,
    iter_label_list,
    read_label_list,
    write_label_list,
)
from tests.support import fuzzing


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "list.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(folder: Path, text: str | bytes, num_classes: int = 11_166) -> LabelList:
    return read_label_list(write(folder, text), num_classes=num_classes)


def as_rows(label_list: LabelList) -> list[tuple[str, list[int], list[float]]]:
    return [(name, c.tolist(), v.tolist()) for name, c, v in label_list]


@pytest.mark.parametrize(
    ("line", "name", "labels"),
    [
        (
            "n04310904/n04310904_8388.JPEG   2367:1  2172:1",
            "n04310904/n04310904_8388.JPEG",
            {2367: 1, 2172: 1},
        ),
        ("https://a.org:80/1_o.jpg\t3:1\t5193:0.9", "https://a.org:80/1_o.jpg", {3: 1, 5193: 0.9}),
        ("https://a.org/1_o.jpg  3:1  5193:0.9", "https://a.org/1_o.jpg", {3: 1, 5193: 0.9}),
        ("name\t940:0.8\t17:1", "name", {940: 0.8, 17: 1}),
        ("name\t940\t17:0.25\t3", "name", {940: 1, 17: 0.25, 3: 1}),
        ("n01440764/n01440764_10026.JPEG 0", "n01440764/n01440764_10026.JPEG", {0: 1}),
        ("a.jpg", "a.jpg", {}),
        ("a.jpg\t", "a.jpg", {}),
        ("my own photo.jpg\t3:1 4:1\t\t 5", "my own photo.jpg", {3: 1, 4: 1, 5: 1}),
        ("my own photo.jpg   3:1\t4:1", "my own photo.jpg", {3: 1, 4: 1}),
        ("my own photo.jpg\t", "my own photo.jpg", {}),
        ("a.jpg\t3:-1\t4:-1.0\t5:0\t6:0.0", "a.jpg", {3: -1, 4: -1, 5: 0, 6: 0}),
        ("a.jpg\t3:.5\t4:1.\t0005:00.50", "a.jpg", {3: 0.5, 4: 1, 5: 0.5}),
        ("a.jpg\t3:1e-3\t4:5E-1\t5:+1", "a.jpg", {3: 0.001, 4: 0.5, 5: 1}),
        ("a.jpg\t3:0.12345678901234567890", "a.jpg", {3: 0.12345678901234567890}),
        ("a.jpg\t3:0.1234567890123", "a.jpg", {3: 0.1234567890123}),
        ("a.jpg\t000000000000000007:1", "a.jpg", {7: 1}),
        ("fotos/Käfer 7.jpg\t7", "fotos/Käfer 7.jpg", {7: 1}),
        ("17382017900\t7", "17382017900", {7: 1}),
        ("12:30 at home.jpg\t7", "12:30 at home.jpg", {7: 1}),
    ],
)
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_every_form_of_a_row(tmp_path, line, name, labels, end):
    rows = read(tmp_path, line + end)
    assert len(rows) == 1
    assert rows[0].name == name
    assert rows[0].classes.tolist() == list(labels)
    np.testing.assert_array_equal(rows[0].confidences, np.float32(list(labels.values())))


def test_the_arrays_worked_by_hand(tmp_path):
    rows = read(tmp_path, "\ufeffa.jpg\t3:1\t2:0.5\r\n\r\n \t\nÄ\nc.jpg 0\n\n")
    assert rows.names.tobytes().decode() == "a.jpgÄc.jpg"
    assert rows.name_offsets.tolist() == [0, 5, 7, 12]
    assert rows.offsets.tolist() == [0, 2, 2, 3]
    assert rows.classes.tolist() == [3, 2, 0]
    assert rows.confidences.tolist() == [1, 0.5, 1]
    kinds = [rows.names, rows.name_offsets, rows.offsets, rows.classes, rows.confidences]
    assert [array.dtype.name for array in kinds] == ["uint8", "int64", "int64", "int32", "float32"]
    assert rows.nbytes == 12 + 2 * 4 * 8 + 3 * 4 + 3 * 4
    assert rows.max_labels == 2
    assert [row.name for row in rows] == ["a.jpg", "Ä", "c.jpg"]
    assert rows[-1].name == "c.jpg"
    for i in (3, -4):
        with pytest.raises(IndexError, match="3 rows"):
            rows[i]


def test_an_empty_file_is_an_empty_list(tmp_path):
    for text in ("", "\n\n", "\ufeff"):
        rows = read(tmp_path, text)
        assert (len(rows), rows.max_labels, list(rows)) == (0, 0, [])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.jpg\t11166:1", "class 11166 is out of range 0..11165"),
        ("a.jpg\t99999999999999999:1", "class 99999999999999999 is out of range"),
        ("a.jpg\t999999999999999999999:1", "'999999999999999999999:1' is not a label"),
        ("a.jpg\t-1:1", "'-1:1' is not a label"),
        ("a.jpg\t3:1.5", "confidence 1.5 of class 3"),
        ("a.jpg\t3:1.0000000001", "confidence 1.0000000001 of class 3"),
        ("a.jpg\t3:-0.5", "confidence -0.5"),
        ("a.jpg\t3:-2", "confidence -2.0"),
        ("a.jpg\t3:1e9", "confidence 1000000000.0"),
        ("a.jpg\t3:nan", "'3:nan' is not a label"),
        ("a.jpg\t3:", "'3:' is not a label"),
        ("a.jpg\t3:.", "'3:.' is not a label"),
        ("a.jpg\t3:-", "'3:-' is not a label"),
        ("a.jpg\t3:0.5x", "'3:0.5x' is not a label"),
        ("a.jpg\t3:1_0", "'3:1_0' is not a label"),
        ("a.jpg\t3:1:1", "'3:1:1' is not a label"),
        ("a.jpg\t:1", "':1' is not a label"),
        ("a.jpg\t3.5", "'3.5' is not a label"),
        ("a.jpg\t3-5", "'3-5' is not a label"),
        ("a.jpg\t3:1,4:1", "'3:1,4:1' is not a label"),
        ("a.jpg\t٣:1", "'٣:1' is not a label"),
        ("a.jpg\t3:1\t4:1\t3:0.5", "class 3 occurs twice"),
        ("a.jpg\t3\t4\t3:1e-3", "class 3 occurs twice"),
        ("my photo.jpg 3:1", "'photo.jpg' is not a label; write"),
        ("my  photo.jpg\t3:1", "'photo.jpg' is not a label"),
        ("3:1\t4:1", "'3:1' looks like a label"),
        ("a.jpg 3:1\t4:1", "no tab follows it: '3:1'"),
        ("\t3:1", "the name is missing"),
        (" a.jpg\t3:1", "the name is missing"),
        ("<html> <body>", "'<body>' is not a label"),
        (b"a.jpg\t\xe9:1", "is not a label"),
        (b"\0\0\0\0", "a NUL byte"),
        (b"a\0.jpg\t3:1", "a NUL byte"),
        ("a.jpg\t3:1".encode("utf-16"), "a NUL byte"),
        ("at 12:30\t3:1", "'12:30' looks like a label"),
        ("a.jpg 12:0,5\t3:1", "'12:0,5' looks like a label"),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path, line, message):
    line = line if isinstance(line, bytes) else line.encode()
    path = write(tmp_path, b"good.jpg\t1:1\n\ngood.jpg\t2:1e-3\n" + line + b"\nworse.jpg\tx\n")
    with pytest.raises(LabelListError) as caught:
        read_label_list(path, num_classes=11_166)
    assert str(caught.value).startswith(f"{path}:4: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b"caf\xe9.jpg\t3:1", r"caf\xe9.jpg"),
        (b"\xed\xa0\x80 \xe9.jpg\t3:1", r"\xed\xa0\x80 \xe9.jpg"),
        (b"Screenshot 12:30:15.png\t3:1", "Screenshot 12:30:15.png"),
        (b"12:30:15.png 3:1", "12:30:15.png"),
        (b"images\\a.jpg\t3:1", r"images\a.jpg"),
        (rb"a\x09b.jpg 3:1", r"a\x09b.jpg"),
        ("e\u0301\u202e\u2028\x85.jpg\t3:1".encode(), "e\u0301\u202e\u2028\x85.jpg"),
    ],
)
def test_odd_names_are_read(tmp_path, line, name):
    rows = read(tmp_path, b"\xc3\xa9.jpg\t1\n" + line + b"\nb.jpg\t2\n")
    assert as_rows(rows) == [("é.jpg", [1], [1]), (name, [3], [1]), ("b.jpg", [2], [1])]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("chunk_bytes", [1, 7, 64, 1 << 20])
def test_line_ends_of_all_systems(tmp_path, monkeypatch, line_end, mark, chunk_bytes):
    lines = [b"%d.jpg\t%d" % (i, i) for i in range(100)]
    longest = max(map(len, lines)) + 2
    monkeypatch.setattr(lists, "_CHUNK_BYTES", max(chunk_bytes, longest))
    rows = read(tmp_path, mark + line_end.join(lines))
    assert as_rows(rows) == [(f"{i}.jpg", [i], [1]) for i in range(100)]
    lines[70] = b"70.jpg\tx"
    with pytest.raises(LabelListError, match=r"list\.txt:71: 'x' is not a label"):
        read(tmp_path, mark + line_end.join(lines))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "utf-16-le"])
def test_other_encodings_are_named(tmp_path, encoding):
    with pytest.raises(LabelListError, match=r"list\.txt: the file is UTF-\d\d text: save it"):
        read(tmp_path, "a.jpg\t3:1\n".encode(encoding))


def test_lines_are_counted_over_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(lists, "_CHUNK_BYTES", 64)
    good = [f"{i}.jpg\t{i}:0.{i:03}" for i in range(200)]
    expected = [(f"{i}.jpg", [i], [float(np.float32(i / 1000))]) for i in range(200)]
    assert as_rows(read(tmp_path, "\n".join(good))) == expected
    good.insert(150, "bad.jpg\t11166")
    with pytest.raises(LabelListError, match=r"list\.txt:151: class 11166"):
        read(tmp_path, "\n".join(good))


def test_columns_grow_when_the_first_rows_mislead(tmp_path, monkeypatch):
    monkeypatch.setattr(lists, "_CHUNK_BYTES", 64)
    bare, full = "a.jpg\n" * 50, "b\t" + "\t".join(map(str, range(15))) + "\n"
    rows = read(tmp_path, bare + full * 50)
    assert rows.offsets.tolist() == [0] * 51 + list(range(15, 751, 15))
    np.testing.assert_array_equal(rows.classes, np.tile(np.arange(15), 50))


def test_parts_together_are_the_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(lists, "_CHUNK_BYTES", 64)
    text = "".join(f"{i}.jpg\t{i % 7}:0.{i % 10}\t9:1\n" for i in range(100))
    path = write(tmp_path, text)
    parts = list(iter_label_list(path, num_classes=10))
    assert len(parts) > 10
    assert [row for part in parts for row in as_rows(part)] == as_rows(read(tmp_path, text))
    path = write(tmp_path, text + "bad.jpg\t10\n")
    reader = iter_label_list(path, num_classes=10)
    assert as_rows(next(reader))[0][0] == "0.jpg"  # what comes before a bad row is there
    with pytest.raises(LabelListError, match=r"list\.txt:101: class 10"):
        list(reader)


def test_a_list_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("what was there")
    rows = LabelList.from_rows([("a", [1], [0.1]), ("b", [2], [-1])], num_classes=3)
    with pytest.raises(KeyError), LabelListWriter(path) as writer:
        writer.write(rows)
        raise KeyError
    assert path.read_text() == "what was there"
    with LabelListWriter(path) as writer:
        writer.write(rows)
        writer.write(rows[i] for i in (1, 0))
        assert path.read_text() == "what was there"
    assert path.read_text() == "a\t1:0.1\nb\t2:-1\nb\t2:-1\na\t1:0.1\n"
    assert [p.name for p in tmp_path.iterdir()] == ["out.txt"]
    with pytest.raises(FileNotFoundError), LabelListWriter(tmp_path / "absent" / "out.txt"):
        pass


def test_a_file_without_line_ends_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(lists, "_CHUNK_BYTES", 64)
    with pytest.raises(LabelListError, match=r"list\.txt:2: the line has more than 64 bytes"):
        read(tmp_path, b"a.jpg\t3\n" + b"x" * 1000)


def test_rows_made_by_hand_are_checked(tmp_path):
    rows = [("a b.jpg", [3, 1], [0.5, -1]), ("c", [], [])]
    made = LabelList.from_rows(rows, num_classes=4)
    assert as_rows(made) == rows
    for bad, message in [
        (("a", [4], [1]), "row 0: class 4 is out of range"),
        (("a", [1], [float("nan")]), "confidence nan"),
        (("a", [1, 1], [1, 1]), "twice"),
        (("a", [1, 2], [1]), "shorter"),
        (("", [1], [1]), "missing"),
        (("a\tb", [1], [1]), "white space"),
        (("a  b", [1], [1]), "white space"),
        (("3:1", [1], [1]), "looks like a label"),
    ]:
        with pytest.raises(LabelListError, match=message):
            LabelList.from_rows([bad], num_classes=4)


def test_numbers_are_written_as_short_as_they_go(tmp_path):
    values = [1, 0.9, 0, -1, 0.25, 1 / 3, 1e-5]
    made = LabelList.from_rows([("a b.jpg", range(7), values), ("c d", [], [])], num_classes=7)
    write_label_list(tmp_path / "out.txt", made)
    expected = "a b.jpg\t0:1\t1:0.9\t2:0\t3:-1\t4:0.25\t5:0.33333334\t6:1e-05\nc d\t\n"
    assert (tmp_path / "out.txt").read_text() == expected


NAMES = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1)
CONFIDENCES = st.just(-1.0) | st.floats(0, 1, width=32)
LABELS = st.dictionaries(st.integers(0, 11_165), CONFIDENCES, max_size=5)


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=5))
@example([b"\xef\xbb\xbfa.jpg", b"12:30", b" ", b"a\\x09", b"\r\n", b"7:1 ", b"\xe9"])
def test_files_of_any_name_stand_in_a_list(tmp_path_factory, paths):
    names = [encode_name(os.fsdecode(path)) for path in paths]
    path = tmp_path_factory.getbasetemp() / "any_names.txt"
    made = LabelList.from_rows([(name, [3], [0.5]) for name in names], num_classes=4)
    write_label_list(path, made)
    found = [row.name for row in read_label_list(path, num_classes=4)]
    assert [os.fsencode(decode_name(name)) for name in found] == paths


@given(st.lists(st.tuples(NAMES, LABELS), max_size=5))
def test_what_is_written_is_read_back_exactly(tmp_path_factory, drawn):
    rows = [(name, list(labels), list(labels.values())) for name, labels in drawn]
    try:
        made = LabelList.from_rows(rows, num_classes=11_166)
    except LabelListError as error:  # a name that no list can hold
        assert "name" in str(error)
        return
    path = tmp_path_factory.getbasetemp() / "written.txt"
    write_label_list(path, made)
    for name, array in vars(read_label_list(path, num_classes=11_166)).items():
        np.testing.assert_array_equal(array, getattr(made, name), err_msg=name)


GOOD_WORDS = ["3:1", "3:0.5", "7", "12:-1", "6:1.", "5:1e-3", "9:0.10000000149", "8:1.0e0"]
ODD_WORDS = ["a.jpg", "é", "4:-0", "3:", ":1", "1e-3", "99", "10000000000:1"]
WORDS = st.sampled_from(GOOD_WORDS + ODD_WORDS)
GAPS = st.sampled_from([" ", "\t", "  ", " \t", "\n", "\r\n", "\n\n"])
LINES = st.lists(st.tuples(WORDS, GAPS), max_size=12).map(
    lambda pairs: "".join(word + gap for word, gap in pairs).encode()
)


@given(LINES | st.binary(max_size=60))
@example(b"a \xff")
@example(b"\xef\xbb\xbf")
@example(b"\0\n")
@example(b"a b\tc d\t3\n")
def test_any_bytes_give_what_the_plain_parser_gives(tmp_path_factory, text):
    check_any_bytes(tmp_path_factory.getbasetemp(), text)


@pytest.mark.slow
@settings(max_examples=fuzzing.fraction(10_000), deadline=None)
@given(LINES | st.binary(max_size=60))
def test_any_bytes_give_what_the_plain_parser_gives_thoroughly(tmp_path_factory, text):
    check_any_bytes(tmp_path_factory.getbasetemp(), text)


def check_any_bytes(folder, text):
    """One row after the other in plain Python is the oracle of the vectorised reader."""
    expected = []
    try:
        for line in unix_line_ends(without_mark(text, where=str(folder / "list.txt"))).split(b"\n"):
            # A NUL is no white space, but the sign of a damaged file.
            if line.strip(bytes(range(1, 0x21))):
                expected.append(parse_row(line, 50))
    except ValueError as error:
        with pytest.raises(LabelListError) as caught:
            read(folder, text, num_classes=50)
        assert str(caught.value).endswith(str(error))
        return
    assert as_rows(read(folder, text, num_classes=50)) == [
        (name, c.tolist(), v.tolist()) for name, c, v in expected
    ]


@pytest.mark.parametrize("name", ["train_im_list_tiny.txt", "train_urls_tiny.txt"])
def test_the_published_lists(tencent_dir, name):
    path = tencent_dir / name
    rows = read_label_list(path, num_classes=11_166)
    expected = []
    for line in path.read_text().splitlines():
        first, *labels = line.split("\t")
        pairs = [label.split(":") for label in labels]
        values = [float(np.float32(value)) for _, value in pairs]
        expected.append((first, [int(c) for c, _ in pairs], values))
    assert as_rows(rows) == expected
    assert len(rows) == 100
    assert rows.max_labels == 28


@pytest.mark.parametrize(("name", "count"), [("train", 822), ("val", 196)])
def test_the_stamps_lists(stamps_dir, name, count):
    rows = read_label_list(stamps_dir / f"{name}_image_list.txt", num_classes=109)
    assert len(rows) == count
    assert rows.offsets[-1] == len(rows.classes) == len(rows.confidences)
    assert (stamps_dir / "images" / rows[0].name).is_file()
