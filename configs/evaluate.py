# SPDX-License-Identifier: BSD-3-Clause
"""Evaluates checkpoints on a data set, at several sizes and in several views.

    mlimages evaluate --checkpoint=W --data=data/imagenet/original/1.0.0 --workdir=EVALUATION

Network, loss and hence the kind of metrics are the checkpoint's own, sizes and views where none
are given. The workdir then holds

    results.jsonl, results.txt     one line an evaluation; the same as a table, beside the published
    <step>/<split>_<protocol>_<size>/{metrics.json, per_class.tsv, confusion.tsv, reliability.png}

Started again it leaves out what it has evaluated with the same weights, data and settings.

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
