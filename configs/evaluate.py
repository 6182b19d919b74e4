# SPDX-License-Identifier: BSD-3-Clause
"""Evaluates checkpoints on a data set, at several sizes and protocols.

    python -m mlimages_jax.main --config=configs/evaluate.py --workdir=EVALUATION \
        --config.checkpoint=W --config.data.folder=data/imagenet/original/1.0.0

Network, loss and hence the kind of metrics are the checkpoint's own, sizes and protocols where none
are given. The workdir then holds

    results.jsonl, results.txt     one line an evaluation; the same as a table, beside the published
    <step>/<split>_<protocol>_<size>/{metrics.json, per_class.tsv, confusion.tsv, reliability.png}

Started again it leaves out what it has evaluated with the same weights, data and settings.
"""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.task = "evaluate"

    config.checkpoint = "workdirs/finetune"  # a workdir, a checkpoint folder or a step
    config.which = "latest"  # or all; or new: as they appear, until the run's last step
    config.poll_seconds = 30.0  # between two looks for new ones
    config.wait_minutes = 120.0  # without a new one, after which it ends
    config.averaged = True  # the averaged weights, where the checkpoint has some

    config.data = ConfigDict()
    config.data.folder = "data/imagenet/original/1.0.0"
    config.data.copy_to = ""  # a local folder that the files are copied to once; "": read in place
    config.data.split = "val"
    config.data.reassessed = ""  # a JSON file of valid classes an image (ReaL's real.json)

    config.evaluation = ConfigDict()
    # Pixels, and of central, short_side, ten_crop, whole. Empty: as the checkpoint's training
    # evaluated; where it does not say, the size it was trained at, central and short_side.
    config.evaluation.sizes = ()
    config.evaluation.protocols = ()
    config.evaluation.batch_size = 256  # images, over all devices; ten_crop holds ten times it
    config.evaluation.threshold = 0.7  # confidence from which a label is true

    # Turn images upright by EXIF: True or False; None: as the checkpoint was trained. It concerns
    # sets that were built with --orientation=stored.
    config.exif_orientation = config_dict.placeholder(bool)
    config.loss = ""  # softmax, weighted, sigmoid, asymmetric; empty: the checkpoint's
    config.dtype = "float32"  # of activations; bfloat16 is faster and a little less exact

    config.input = ConfigDict()
    config.input.num_threads = 16
    config.input.max_bad_images = 1_000
    return config
