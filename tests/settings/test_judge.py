# SPDX-License-Identifier: BSD-3-Clause
import math
import typing

import pytest

from mlimages_jax import settings
from mlimages_jax.data.images import transforms, views
from mlimages_jax.distributed import sharding
from mlimages_jax.features.export import feature_files
from mlimages_jax.inference import tag_files
from mlimages_jax.settings import build, tables
from mlimages_jax.settings.flat import flatten, nest
from tests.support.small_run import load_config

VARIANTS = [
    ("pretrain", "released"), ("pretrain", "paper"), ("quickstart",), ("evaluate",), ("classify",),
    ("export_features",), ("finetune", "224"), ("finetune", "224to299"), ("finetune", "299"),
    ("finetune", "scratch"), ("finetune", "modern"),
]  # fmt: skip


def _with(name, *variant, **changes):
    return nest(flatten(load_config(name, *variant)) | changes)


def _lines(config, **kwargs) -> list[str]:
    try:
        settings.check(config, **kwargs)
    except settings.ConfigError as error:
        return str(error).splitlines()
    return []


@pytest.mark.parametrize("config", VARIANTS, ids=":".join)
def test_every_config_is_right_and_its_table_has_its_names(config):
    loaded = load_config(*config)
    assert _lines(loaded) == []
    values = flatten(loaded)
    assert values.keys() <= tables.TABLES[values["task"]].keys()
    known_elsewhere = ("loss.", "schedule.")  # sections that are not chosen
    assert not {
        name
        for name in tables.TABLES[values["task"]].keys() - values.keys()
        if not name.startswith(known_elsewhere)
    }


@pytest.mark.parametrize("config", VARIANTS, ids=":".join)
def test_every_field_of_every_config_is_judged(config):
    """None of them may be what no setting is; the line names it, and nothing else is blamed."""
    values = flatten(load_config(*config))
    for name in values:
        if name != "task":
            for bad in (math.inf, math.nan, ((object(),),)):
                lines = _lines(nest(values | {name: bad}))
                assert len(lines) == 1, (name, bad, lines)
                assert lines[0].startswith(f"{name}="), lines


REFUSED = {
    "checkpoint.keep_latest": (0, -1),
    "checkpoint.every": (-1, 1.5, "a"),
    "evaluate_every": (-2,),
    "log_every": (-2, 2.5),
    "schedule.cosine.learning_rate": (-0.1, math.nan, math.inf, "0.1", True),
    "schedule.cosine.warmup_steps": (1_100, 5_000, -1),
    "total_steps": (-5, 0, 3.0, 0.5, True, "9"),
    "data.order": ("random", ""),
    "crop.area": ((1.0, 0.7), (0.0, 1.0), (0.5, 1.5), 0.5, (0.5,), "0.5"),
    "crop.aspect": ((1.33, 0.75), (-1.0, 1.0)),
    "crop.flip": (1, "yes"),
    "group_size": (-1, 63, 128),
    "batch_size": (0, -64, 64.0),
    "image_size": (0, 48.5),
    "seed": (-1, 2**32),
    "resize": ((4, 32, 16), ((4, 32),), ((9, 48, 64), (4, 48, 64)), ((4, 48, 64), (4, 32, 64))),
    "optimizer.momentum": (1.0, -0.1),
    "optimizer.average_decay": (1.0, -0.5),
    "optimizer.weight_decay": (-1e-4,),
    "optimizer.freeze": ("stem/*", ("",), (3,)),
    "optimizer.learning_rate_factors": (("head/*", 10.0), (("head/*", 0.0),), (("head/*",),)),
    "loss.name": ("sofmax", "hinge"),
    "loss.softmax.label_smoothing": (1.0, -0.1),
    "loss.weighted.group_size": (7,),
    "loss.weighted.threshold": (1.5, -0.1),
    "loss.weighted.positive_weight": (0, -1.0),
    "evaluation.threshold": (2.0, -1, 0),
    "evaluation.protocols": ((), ("middle",), ("whole", "whole")),
    "evaluation.sizes": ((0,), 224, (48, 48)),
    "model.stage_sizes": ((1, 1, 0), 3),
    "model.stage_widths": ((64, 128, 255), (64, 128)),
    "model.dtype": ("float16",),
    "sharding.name": ("zero",),
    "schedule.name": ("linear",),
    "augmentation.magnitude": (11.0,),
    "augmentation.cutmix": (-1.0,),
    "input.num_threads": (0,),
    "input.max_bad_images": (-1,),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_training_refuses(name):
    for value in REFUSED[name]:
        lines = _lines(_with("quickstart", **{name: value}))
        assert any(name in line and repr(value) in line for line in lines), (value, lines)


@pytest.mark.parametrize(
    ("config", "name", "bad"),
    [
        ("evaluate", "evaluation.sizes", (0,)),
        ("evaluate", "poll_seconds", 0.0),
        ("evaluate", "loss", "hinge"),
        ("classify", "top_k", -1),
        ("classify", "threshold", 1.1),
        ("classify", "format", "xml"),
        ("classify", "max_errors", -2),
        ("export_features", "outputs", ()),
        ("export_features", "view.size", -1),
        ("export_features", "rows_per_part", 0),
    ],
)
def test_other_tasks_refuse(config, name, bad):
    (line,) = _lines(_with(config, **{name: bad}))
    assert line.startswith(f"{name}={bad!r}")


PRETRAINING = {
    "schedule.name": "pretraining",
    "schedule.pretraining.learning_rate": 0.1,
    "schedule.pretraining.decay_steps": 10,
    "schedule.pretraining.decay_factor": 0.1,
    "schedule.pretraining.warmup_steps": 0.5,
    "schedule.pretraining.warmup_learning_rate": 0.01,
    "schedule.pretraining.warmup_decay_steps": 100,
    "schedule.pretraining.warmup_decay_factor": 1.3,
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group_size": 24}, "group_size=24: batch_size=64 is not divisible"),
        ({"resize": ((4, 48, 32),)}, "batch size in config.resize must stay the same"),
        ({"augmentation.mixup": 0.2, "group_size": 1}, "group_size=1 has no second"),
        ({"schedule.name": "staircase"}, "schedule.staircase.learning_rate is missing"),
        ({"image_size": 2**31 - 1}, "image_size=2147483647: give a whole number, 1 to 16384"),
        ({"total_steps": 10**400}, "total_steps=100"),
        ({"seed": "x" * 10_000}, "... (10002 characters): give a whole number"),
        (
            PRETRAINING | {"schedule.pretraining.warmup_decay_steps": 1, "total_steps": 3_000},
            "makes the rate infinite",
        ),
        ({"optimizer.freez": ()}, "no such setting; did you mean 'optimizer.freeze'?"),
    ],
)
def test_settings_must_suit_each_other(changes, message):
    assert any(message in line for line in _lines(_with("quickstart", **changes)))


def test_a_missing_setting_is_named():
    values = flatten(load_config("quickstart"))
    del values["checkpoint.keep_latest"]
    assert _lines(nest(values)) == [
        "checkpoint.keep_latest is missing: the files of configs/ have it"
    ]


def test_all_problems_come_at_once():
    changes = {"seed": -1, "log_every": -1, "data.order": "random", "crop.area": (1.0, 0.1)}
    first, *lines = _lines(_with("quickstart", **changes))
    assert first == "4 settings cannot be used:"
    assert sorted(line.strip().partition("=")[0] for line in lines) == sorted(changes)


def test_an_unknown_task_is_named():
    message = "task='evalute' is none of train, .*did you mean 'evaluate'"
    with pytest.raises(settings.ConfigError, match=message):
        settings.check(_with("evaluate", task="evalute"))


def test_paths_must_be_there_unless_they_are_not_needed(tmp_path):
    there, nowhere, workdir = str(tmp_path), str(tmp_path / "no"), str(tmp_path / "w")
    finetuning = _with("finetune", "224", **{"data.folder": there, "init_from": nowhere})
    (line,) = _lines(finetuning, workdir=workdir)
    assert line.startswith(f"init_from={nowhere!r}: there is nothing at this path: give a workdir")
    (tmp_path / "w" / "checkpoints").mkdir(parents=True)
    assert _lines(finetuning, workdir=workdir) == []  # a restart takes its own checkpoint
    for which, count in (("latest", 1), ("new", 0)):
        config = _with("evaluate", checkpoint=nowhere, which=which, **{"data.folder": there})
        assert len(_lines(config, workdir=workdir)) == count
    assert _lines(_with("quickstart"), workdir=workdir) == []
    (line,) = _lines(_with("quickstart", task="train"), workdir=workdir)
    assert line.startswith("data.folder='': give the folder of a built set")
    assert len(_lines(_with("classify", thresholds=nowhere), workdir=workdir)) == 1 + 3


def test_the_names_of_the_tables_are_those_of_the_program():
    assert set(tables.LOSSES) == set(build._LOSSES)
    assert tables.VIEWS == views.PROTOCOLS
    choices = {
        "schedule.name": tuple(build._SCHEDULES),
        "sharding.name": sharding.MODES,
        "crop.interpolation": typing.get_args(transforms.Interpolation),
    }
    for name, names in choices.items():
        assert tables.TRAIN[name].names == names
    assert tables.CLASSIFY["format"].names == (*tag_files.ENDINGS, "")
    assert tables.EXPORT["format"].names == feature_files.FORMATS
