# SPDX-License-Identifier: BSD-3-Clause
"""Computes features of images with a checkpoint, and writes them in the order of the images.

    mlimages export IMAGES --checkpoint=W --output=FEATURES

IMAGES is a folder, a list, one image, or a built set (then --config.split=val). Run again, the
command resumes. mlimages_jax/features/export/feature_files.py describes the files in the workdir,
and its `open_features` reads them.

Add --config.help for every setting, its meaning and its default.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "task": "export_features",
            "checkpoint": "workdirs/finetune",  # a workdir, a checkpoint folder or a step
            "input": "images",
        }
    )
