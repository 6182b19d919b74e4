# SPDX-License-Identifier: BSD-3-Clause
"""What a plan says of the files of the data set."""

import pytest

from mlimages_jax.plan.report import ReportInputs, _files
from mlimages_jax.settings import config_file, replaced, resolved

CONFIG = config_file.read_config("pretrain", [])
STREAMS = {"batch_size": 4_096, "group_size": 32, "data.order": "streams"}


@pytest.mark.parametrize(
    ("changes", "files", "lines"),
    [
        ({"data.order": "global", "group_size": 0}, 0, []),
        (
            {"data.order": "global"},
            64,
            ["streams would need 128, built with --num-shards=4352"],
        ),
        (
            {},
            0,
            ["128 streams (batch_size / group_size) need as many files or a multiple"],
        ),
        ({}, 4_352, ["--num-shards=4352"]),
        ({}, 64, ["--num-shards=4352", "the built set has 64 files, too few: build it again"]),
        ({}, 4_096 + 64, ["", "has 4,160 files, so streams differ in length: build it again"]),
    ],
)
def test_files_for_the_order(changes, files, lines):
    config = resolved(replaced(CONFIG, STREAMS | changes))
    inputs = ReportInputs(0.4, 8, images=17_609_752, image_bytes=1e4, price=0, files=files)
    said = list(_files(config, inputs))
    assert len(said) == len(lines)
    assert all(part in line for part, line in zip(lines, said, strict=True)), said
