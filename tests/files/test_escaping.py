# SPDX-License-Identifier: BSD-3-Clause
import csv
import io
import json
import math
import random
from pathlib import Path

import pytest
from absl import logging

from mlimages_jax.files.escaping import (
    csv_cell,
    finite,
    json_line,
    one_line,
    several_lines,
    tsv_row,
)

PLAIN = [
    "", "great white shark, white shark", "Müller's \"dog\"", "日本語", "שלום",
    "a\u200db", "e\u0301", "C:\\images\\x.jpg", "a  b", "\N{GRINNING FACE}",
    "50% | <b> `x` *", "a\xa0b",
]  # fmt: skip
ODD = {
    "a\nb": r"a\nb",
    "a\r\n\tb": r"a\r\n\tb",
    "\x1b[2J\x07": r"\x1b[2J\x07",
    "\x9b31m": r"\x9b31m",
    "gpj.\u202etxt.exe": r"gpj.\u202etxt.exe",
    "a\u2028b\u2066c": r"a\u2028b\u2066c",
    "caf\udce9": r"caf\udce9",
    "\ufeffid": r"\ufeffid",
    "a\u200bb": r"a\u200bb",
    "\0": r"\x00",
}


@pytest.mark.parametrize("text", PLAIN)
def test_plain_text_stays(text):
    assert one_line(text) == csv_cell(text) == several_lines(text) == text


@pytest.mark.parametrize("text", ODD)
def test_what_a_line_cannot_hold_is_shown(text):
    assert one_line(text) == ODD[text]
    one_line(text).encode()


@pytest.mark.parametrize(
    "start", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"]
)
def test_formulas_are_text_in_a_spreadsheet(start):
    assert csv_cell(f"{start}cmd|' /C calc'!A0") == "'" + one_line(start) + "cmd|' /C calc'!A0"
    assert csv_cell(f"a{start}1") == one_line(f"a{start}1")


@pytest.mark.parametrize("number", ["-1", "+0.5", "-1e-05", "0.83", "-12.5"])
def test_numbers_are_no_formulas(number):
    assert csv_cell(number) == number


def test_line_ends_of_a_message_stay():
    assert several_lines("a\x1bb\n  c\td\n") == "a\\x1bb\n  c\\td\n"


def test_a_row_has_as_many_columns_as_cells():
    assert tsv_row([3, "a\tb", "c\nd", ""]) == "3\ta\\tb\tc\\nd\t\n"


@pytest.mark.parametrize("text", [*PLAIN, *ODD])
def test_json_is_one_line_and_says_the_same(text):
    line = json_line({text: [text, 0.5]})
    assert one_line(line) == line
    assert json.loads(line) == {text: [text, 0.5]}


def test_numbers_that_json_lacks_are_null():
    found = finite({"a": [1.5, math.nan, (math.inf, "nan")], "b": -math.inf, "c": 3, "d": True})
    assert found == {"a": [1.5, None, [None, "nan"]], "b": None, "c": 3, "d": True}


def test_any_text_is_one_line_of_a_csv_file():
    draw = random.Random(0)
    for _ in range(500):
        text = "".join(chr(draw.choice([draw.randrange(0x300), draw.randrange(0x110000)]))
                       for _ in range(draw.randrange(12)))  # fmt: skip
        file = io.StringIO(newline="")
        csv.writer(file).writerow([csv_cell(text), "end"])
        line = file.getvalue().encode().decode()
        assert len(line.splitlines()) == 1
        assert next(csv.reader([line]))[1] == "end"


def test_log_lines_hold_nothing_that_a_terminal_or_an_encoding_minds(caplog):
    with caplog.at_level("INFO", logger="absl"):
        logging.info("%s: %d of %s", Path("caf\udce9"), 3, ValueError("a\x1b[2Jb\u202e"))
        logging.info("a table:\n%s", "one\ntwo")
        logging.info("no arguments")
    told = [record.getMessage() for record in caplog.records]
    assert told == [r"caf\udce9: 3 of a\x1b[2Jb\u202e", "a table:\none\ntwo", "no arguments"]
