# SPDX-License-Identifier: BSD-3-Clause
"""A small network and images of noise for exports, and what an export leaves."""

import json

from mlimages_jax.models.resnet import ResNet
from tests.support.small_run import load_config

OUTPUTS = ("features", "logits", "stage0", "stage1")
MODEL = ResNet(5, stage_sizes=(2, 1), stage_widths=(16, 32), stem_width=8, stem_kernel=3)


def settings_of(workdir, path, **changes):
    return {
        "checkpoint": str(workdir), "input": str(path), "outputs": OUTPUTS, "view.size": 32,
        "batch_size": 8, "rows_per_part": 8, "num_threads": 2,
    } | changes  # fmt: skip


def config_of(workdir, path, **changes):
    return load_config("export_features", **settings_of(workdir, path, **changes))


def files_of(workdir):
    """All bytes but the speed."""
    found = {p.relative_to(workdir): p.read_bytes() for p in workdir.rglob("*") if p.is_file()}
    manifest = json.loads(next(v for k, v in found.items() if k.name == "features.json"))
    left_out = "features.json", "run.lock"  # the latter stays after an elastic export
    kept = {path: data for path, data in found.items() if path.name not in left_out}
    return kept, {key: value for key, value in manifest.items() if key != "speed"}
