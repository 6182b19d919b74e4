# SPDX-License-Identifier: BSD-3-Clause
import numpy as np

from mlimages_jax.labels import release
from mlimages_jax.labels.hierarchy import Hierarchy


def test_the_published_dictionary_is_recognised_in_every_copy(tencent_dir, tmp_path):
    path = tencent_dir / "dictionary_and_semantic_hierarchy.txt"
    copy = tmp_path / "dictionary.txt"
    copy.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    for file in (path, copy):
        hierarchy = Hierarchy.from_file(file)
        assert release.is_published(hierarchy)
        faults = release.known_faults(hierarchy)
    assert [fault.split(" (")[0] for fault in faults[:3]] == [
        "pet", "livestock, stock, farm animal", "domestic animal",
    ]  # fmt: skip
    assert faults[3].startswith("533 more classes")
    for id_ in ("n01318894", "n01887474"):
        assert hierarchy.index(id_) in hierarchy.leaves
    names = [hierarchy.names[i] for i in hierarchy.children(hierarchy.index("n01317541"))]
    assert names == ["head", "stray", "feeder"]


def test_other_dictionaries_have_no_known_faults():
    other = Hierarchy(("a", "b"), ("a", "b"), np.array([-1, 0]))
    assert not release.is_published(other)
    assert release.known_faults(other) == []
    renamed = Hierarchy(("a", "b"), ("x", "y"), np.array([-1, 0]))
    moved = Hierarchy(("a", "b"), ("a", "b"), np.array([-1, -1]))
    digests = list(map(release.class_list_digest, (other, renamed, moved)))
    assert digests[0] == digests[1] != digests[2]


def test_the_parts_of_the_release_add_up():
    rows = [published.rows for published in release.LISTS]
    assert rows[0] == rows[1] + rows[2]
    assert rows[3] == rows[4] + rows[5]
    assert release.CLASSES == 10_032 + 1_134
