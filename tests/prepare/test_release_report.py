# SPDX-License-Identifier: BSD-3-Clause
import numpy as np
import pytest

from mlimages_jax.labels import release
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.prepare.release_report import Held, release_report

# As many classes as were published, all of them roots.
FLAT = Hierarchy(
    tuple(f"c{i}" for i in range(release.CLASSES)),
    tuple(f"name {i}" for i in range(release.CLASSES)),
    np.full(release.CLASSES, -1),
)


def test_another_set_is_not_compared():
    small = Hierarchy(("a",), ("a",), np.array([-1]))
    assert release_report(small, [Held("train", 17_609_752)]) == ""


def test_rows_stand_beside_the_published_ones():
    report = release_report(
        FLAT,
        [
            Held("train_urls.txt", 6_902_811, "ab12"),
            Held("train", 17_000_000),
            Held("val\x1b[2J", 88_740),
            Held("tiny.txt", 100),
        ],
    )
    assert "not as published: ids and parents have the SHA-256" in report
    assert "   6,902,811 train_urls.txt: as many as training, the part from Open Images" in report
    assert "SHA-256 ab12\n" in report
    assert "  17,000,000 train: 609,752 fewer than training, all" in report
    assert r"val\x1b[2J: 1 more than validation, all" in report
    assert "100 tiny.txt: a part of a list: every published list is more than twice" in report
    for published in release.LISTS:
        assert f"{published.rows:,} {published.what}" in report
    assert "1,134" in report
    assert "Fewer rows than published" in report
    assert "More rows than published" in report
    assert "The release has no digests" in report


@pytest.mark.parametrize(
    ("rows", "notes"),
    [([17_609_752], ()), ([17_609_751], ("Fewer",)), ([50_001], ("More",)), ([7], ())],
)
def test_only_the_differences_that_there_are_have_a_note(rows, notes):
    report = release_report(FLAT, [Held(str(number), number) for number in rows])
    for note in ("Fewer rows", "More rows"):
        assert (note in report) == (note.split()[0] in notes)
    assert "digests" not in report


def test_the_published_dictionary_has_its_faults_listed(tencent_dir):
    hierarchy = Hierarchy.from_file(tencent_dir / "dictionary_and_semantic_hierarchy.txt")
    report = release_report(hierarchy, [])
    assert "dictionary: as published" in report
    assert "pet (n01318894) is a leaf" in report
    assert "--corrections published" in report
    assert max(map(len, report.splitlines())) <= 130
