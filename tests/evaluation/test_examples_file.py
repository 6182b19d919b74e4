# SPDX-License-Identifier: BSD-3-Clause
import json

import pytest

from mlimages_jax.evaluation import examples_file
from mlimages_jax.evaluation.examples_file import Example, ExamplesError

ONE = Example("a <b>.jpg", b"\xff\xd8", (3, 1), ((3, 0.5, True), (0, 0.25, False)))


def test_what_is_written_is_read(tmp_path):
    examples_file.write(tmp_path / "e.json", [ONE])
    assert examples_file.read(tmp_path / "e.json", num_classes=4) == [ONE]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"version": 1, "examples": [{"image"', "is malformed"),
        ("[]", "is malformed"),
        ('{"version": 1, "examples": [{"image": "a"}]}', "is malformed"),
        ('{"version": 2}', "is malformed|has version 2, this program reads 1"),
    ],
)
def test_malformed_files(tmp_path, content, message):
    (tmp_path / "e.json").write_text(content)
    with pytest.raises(ExamplesError, match=message):
        examples_file.read(tmp_path / "e.json", num_classes=4)


def test_classes_of_another_model(tmp_path):
    examples_file.write(tmp_path / "e.json", [ONE])
    assert json.loads((tmp_path / "e.json").read_text())["version"] == 1
    with pytest.raises(ExamplesError, match=r"class 3 is not in 0\.\.2"):
        examples_file.read(tmp_path / "e.json", num_classes=3)
