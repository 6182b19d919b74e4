# SPDX-License-Identifier: BSD-3-Clause
"""Finds the minimum probability of a tag for every class, on images with known labels.

    mlimages thresholds WORKDIR

It writes WORKDIR/thresholds.tsv, which `mlimages tag` and `mlimages_jax.load` then use. Unless
given, the data set is that of the training, and the split the first one that it evaluates.

Add --config.help for every setting, its meaning and its default.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "task": "thresholds",
            "checkpoint": "workdirs/finetune",  # a workdir, a checkpoint folder or a step
        }
    )
