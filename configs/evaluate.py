# SPDX-License-Identifier: BSD-3-Clause
"""Evaluates checkpoints on a data set, at several image sizes and in several views.

    mlimages evaluate --checkpoint=W --data=data/imagenet/original/1.0.0 --workdir=EVALUATION

The checkpoint determines the network and the loss, hence the kind of metrics, and unless they are
given also the sizes and views. Afterwards the workdir contains

    results.jsonl, results.txt     one line per evaluation; a table next to the published results
    <step>/<split>_<view>_<size>/{metrics.json, per_class.tsv, confusion.tsv, reliability.png}

Run again, it skips evaluations already made with the same weights, data and settings.

Add --config.help for every setting, its meaning and its default.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "task": "evaluate",
            "checkpoint": "workdirs/finetune",  # a workdir, a checkpoint folder or a step
            "data": {"folder": "data/imagenet/original/1.0.0"},
        }
    )
