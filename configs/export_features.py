# SPDX-License-Identifier: BSD-3-Clause
"""Features of images from a checkpoint, to files, in the order of the input.

    mlimages export IMAGES --checkpoint=W --output=FEATURES

IMAGES is a folder, a list, one image, or a built set (then --config.split=val). Started again, it
resumes. mlimages_jax/features/export/feature_files.py says what the workdir then holds, and its
`open_features` reads it.

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
