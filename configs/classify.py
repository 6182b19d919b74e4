# SPDX-License-Identifier: BSD-3-Clause
"""Tags of images from a checkpoint, to a file, in the order of the input.

    python -m mlimages_jax.main --config=configs/classify.py --workdir=W \
        --config.checkpoint=CHECKPOINT --config.input=IMAGES --config.output=tags.csv

IMAGES is a folder, a list, one image, or a built set (then --config.split=val). The suffix of the
output decides its format; mlimages_jax/inference/tag_files.py says what each holds. It appears when
it is complete; started again after an interruption, the command resumes.
"""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.task = "classify"

    config.checkpoint = "workdirs/finetune"  # a workdir, a checkpoint folder or a step
    config.dictionary = ""  # category file; empty: the one in the checkpoint's workdir
    config.loss = ""  # softmax, weighted, sigmoid, asymmetric; empty: the checkpoint's

    config.input = "images"
    config.split = ""  # of a built set
    config.images_root = ""  # where the paths of a list begin; empty: at the list's folder
    # Turn images upright by EXIF: True or False; None: as the checkpoint was trained. Where it does
    # not say, files are turned, and images of a built set are not.
    config.exif_orientation = config_dict.placeholder(bool)

    config.output = ""  # a file ending in .jsonl, .csv, .parquet or .txt; empty: in the workdir
    # In csv a text that a spreadsheet would take for a formula begins with ', see tag_files.
    config.format = ""  # jsonl, csv, parquet, label_pred (the original's); empty: by the ending

    config.top_k = 5  # tags of an image at most; 0: no bound
    config.threshold = 0.0  # probability that a tag needs
    config.thresholds = ""  # file of single classes: WordNet id or index, tab, threshold
    config.consistent = False  # lower what is above one of its ancestors to it first

    config.view = ConfigDict()
    # ten_crop (averaged), short_side (the original's), central or whole; empty: as the training
    # evaluated, and short_side where the checkpoint does not say.
    config.view.protocol = ""
    config.view.size = 0  # pixels; 0: as the checkpoint was trained

    config.dtype = "float32"  # of activations; bfloat16 is faster and a little less exact
    config.batch_size = 256  # images, over all devices; ten_crop holds ten times it
    config.num_threads = 16  # that read and decode
    config.max_errors = -1  # unreadable images before it ends; -1: any number
    return config
