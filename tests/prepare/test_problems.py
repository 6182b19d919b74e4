# SPDX-License-Identifier: BSD-3-Clause
"""The table of problems: complete, one line each, and there when the job ends."""

import pytest

from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.problems import Problem, ProblemList

HEADER = "file\trecord\tname\tproblem\tmessage\n"
IMAGE = Problem("a.tfrecords", 7, "x.jpg", "truncated", "libjpeg: Premature end")
FILE = Problem("b.tfrecords", None, "", "hash", "two\nlines\tand a tab \x1b[31m")


def test_all_are_counted_and_written_and_some_are_shown(tmp_path, capsys):
    with ProblemList(tmp_path / "problems.tsv") as problems:
        problems.add(FILE)
        for _ in range(30):
            problems.add(IMAGE)
        assert not (tmp_path / "problems.tsv").exists()
    assert problems.summary() == "30 truncated, 1 hash"
    assert (tmp_path / "problems.tsv").read_text() == (
        f"{HEADER}b.tfrecords\t\t\thash\ttwo\\nlines\\tand a tab \\x1b[31m\n"
        + "a.tfrecords\t7\tx.jpg\ttruncated\tlibjpeg: Premature end\n" * 30
    )
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 21
    assert printed[0] == r"b.tfrecords: hash: two\nlines\tand a tab \x1b[31m"
    assert printed[1] == "a.tfrecords record 7 (x.jpg): truncated: libjpeg: Premature end"
    assert printed[20] == f"... the others will be in {tmp_path / 'problems.tsv'}"


def test_without_a_table(capsys):
    with ProblemList(None) as problems:
        for _ in range(21):
            problems.add(FILE)
    assert problems.counts == {"hash": 21}
    assert capsys.readouterr().out.splitlines()[-1] == "... the others are only counted"


def test_the_table_is_kept_where_the_job_ends_by_itself_only(tmp_path):
    path = tmp_path / "problems.tsv"
    with pytest.raises(PrepareError), ProblemList(path):
        raise PrepareError("nothing was usable")
    assert path.read_text() == HEADER
    path.write_text("of an earlier run")
    with pytest.raises(KeyboardInterrupt), ProblemList(path) as problems:
        problems.add(FILE)
        raise KeyboardInterrupt
    assert path.read_text() == "of an earlier run"
    assert list(tmp_path.iterdir()) == [path]
