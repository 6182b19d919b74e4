# SPDX-License-Identifier: BSD-3-Clause
"""Tags of images from a checkpoint, to a file, in the order of the input.

    mlimages tag IMAGES --checkpoint=CHECKPOINT --output=tags.csv

IMAGES is a folder, a list, one image, or a built set (then --config.split=val). The suffix of the
output decides its format; mlimages_jax/inference/tag_files.py says what each holds. It appears when
it is complete; started again after an interruption, the command resumes, and on images that changed
it tags what is new.

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
