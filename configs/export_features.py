# SPDX-License-Identifier: BSD-3-Clause
"""Features of images from a checkpoint, to files, in the order of the input.

    python -m mlimages_jax.main --config=configs/export_features.py --workdir=FEATURES \
        --config.checkpoint=W --config.input=IMAGES

IMAGES is a folder, a list, one image, or a built set (then --config.split=val). Started again, it
resumes. mlimages_jax/features/export/feature_files.py says what the workdir then holds, and its
`open_features` reads it.
"""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.task = "export_features"

    config.checkpoint = "workdirs/finetune"  # a workdir, a checkpoint folder or a step
    config.averaged = True  # the averaged weights, where the checkpoint has some

    config.input = "images"
    config.split = ""  # of a built set
    config.images_root = ""  # where the paths of a list begin; empty: at the list's folder
    # Turn images upright by EXIF: True or False; None: as the checkpoint was trained. Where it does
    # not say, files are turned, and images of a built set are not.
    config.exif_orientation = config_dict.placeholder(bool)

    # features (pooled, 2,048), logits, and stage0, stage1, ... (outputs of stages, pooled).
    config.outputs = ("features",)
    config.view = ConfigDict()
    # ten_crop (averaged), short_side (the original's), central or whole; empty: as the training
    # evaluated, and short_side where the checkpoint does not say.
    config.view.protocol = ""
    config.view.size = 0  # pixels; 0: as the checkpoint was trained

    config.format = "parquet"  # or npy, npz, array_record
    config.stored_dtype = "float32"  # or float16
    config.rows_per_part = 2_048  # a whole part is made by one process, and lost when it is killed

    config.dtype = "float32"  # of activations; bfloat16 is faster and a little less exact
    config.batch_size = 256  # images, over all devices; ten_crop holds ten times it
    config.num_threads = 16  # that read and decode
    config.max_errors = -1  # unreadable images of a process before it ends; -1: any number
    return config
