# SPDX-License-Identifier: BSD-3-Clause
"""Tags images with a checkpoint and writes the tags to a file, in the order of the images.

    mlimages tag IMAGES --checkpoint=CHECKPOINT --output=tags.csv

IMAGES is a folder, a list, one image, or a built set (then --config.split=val). The extension of
the output determines its format, see mlimages_jax/inference/tag_files.py. The file appears once it
is complete. Run again, the command resumes after an interruption, and later tags only images that
are new or have changed.

Add --config.help for every setting, its meaning and its default.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "task": "classify",
            "checkpoint": "workdirs/finetune",  # a workdir, a checkpoint folder or a step
            "input": "images",
        }
    )
