# SPDX-License-Identifier: BSD-3-Clause
import dataclasses
import math
import typing

import pytest

from mlimages_jax import settings
from mlimages_jax.data.images import transforms, views
from mlimages_jax.distributed import sharding
from mlimages_jax.features.export import feature_formats
from mlimages_jax.inference import tag_files
from mlimages_jax.settings import build, build_loss, flatten, losses, tasks, training
from tests.support.small_run import load_config

VARIANTS = [
    ("pretrain", "released"), ("pretrain", "paper"), ("quickstart",), ("evaluate",), ("classify",),
    ("export_features",), ("finetune", "224"), ("finetune", "224to299"), ("finetune", "299"),
    ("finetune", "scratch"), ("finetune", "modern"), ("tagger",),
]  # fmt: skip


def _with(name, *variant, **changes):
    return flatten(load_config(name, *variant)) | changes


def _lines(values, **kwargs) -> list[str]:
    try:
        settings.parse(values, **kwargs)
    except settings.ConfigError as error:
        return str(error).splitlines()
    return []


@pytest.mark.parametrize("config", VARIANTS, ids=":".join)
def test_every_config_has_every_setting_but_those_of_other_schedules(config):
    values = flatten(load_config(*config))
    assert _lines(values) == []
    left_out = tasks.TABLES[values["task"]].keys() - values.keys()
    assert all(name.startswith("schedule.") for name in left_out), left_out
    assert f"schedule.{values.get('schedule.name')}." not in "".join(left_out)


@pytest.mark.parametrize("config", VARIANTS, ids=":".join)
def test_every_field_of_every_config_is_judged(config):
    """None of them may be what no setting is; the line names it, and nothing else is blamed."""
    values = flatten(load_config(*config))
    for name in values:
        if name != "task":
            for bad in (math.inf, math.nan, ((object(),),)):
                lines = _lines(values | {name: bad})
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
    "optimizer.ema_decay": (1.0, -0.5),
    "optimizer.weight_decay": (-1e-4,),
    "optimizer.freeze": ("stem/*", ("",), (3,)),
    "optimizer.lr_multipliers": (("head/*", 10.0), (("head/*", 0.0),), (("head/*",),)),
    "optimizer.unfreeze": (("stem/*", 0.1), (("stem/*", 0),), (("stem/*", 1.5),)),
    "loss.name": ("sofmax", "hinge"),
    "loss.softmax.label_smoothing": (1.0, -0.1),
    "loss.weighted.group_size": (7,),
    "loss.weighted.threshold": (1.5, -0.1),
    "loss.weighted.positive_weight": (0, -1.0),
    "evaluation.threshold": (2.0, -1, 0),
    "evaluation.views": ((), ("middle",), ("whole", "whole")),
    "evaluation.sizes": ((0,), 224, (48, 48)),
    "model.stage_sizes": ((1, 1, 0), 3),
    "model.stage_widths": ((64, 128, 255), (64, 128)),
    "model.dtype": ("float16",),
    "sharding.name": ("zero",),
    "schedule.name": ("linera",),
    "accumulate": (0, 1.0, 2),  # 2: quickstart's batch is one group
    "profile.steps": ((5,), (9, 5), (1, 2, 3), (0, 5), 5),
    "optimizer.name": ("adam", ""),
    "optimizer.beta1": (1.0, -0.1),
    "optimizer.epsilon": (0,),
    "optimizer.clip_norm": (-1.0,),
    "augmentation.magnitude": (11.0,),
    "augmentation.hue": (-0.1, 0.6),
    "augmentation.cutmix": (-1.0,),
    "input.num_threads": (0,),
    "input.num_workers": (-1, 1.0),
    "input.max_bad_images": (-1,),
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group_size": 0, "accumulate": 2}, "with one group"),
        ({"group_size": 16, "accumulate": 3}, "batch_size=64 is not 3 equal parts"),
        ({"group_size": 16, "accumulate": 2, "resize": ((9, 32, 16),)}, "batch_size=16 is not 2"),
        ({"group_size": 8, "accumulate": 4, "loss.weighted.group_size": 32}, "with loss.wei"),
    ],
)
def test_parts_must_keep_groups_whole(changes, message):
    lines = _lines(_with("quickstart", **changes))
    assert any(line.strip().startswith("accumulate=") and message in line for line in lines), lines


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "one_cycle"])
def test_a_warmup_ends_before_the_run(schedule):
    changes = {"schedule.name": schedule, f"schedule.{schedule}.learning_rate": 0.1}
    name = f"schedule.{schedule}.warmup_steps"
    assert not _lines(_with("quickstart", **changes, **{name: 0.9}))
    lines = _lines(_with("quickstart", **changes, **{name: 1_100}))
    assert len(lines) == 1 and lines[0].startswith(f"{name}=1100: the warm-up must be shorter")


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
        ("classify", "top_k", -2),
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
        ({"augmentation.mixup": 0.2, "group_size": 1}, "group_size=1 has only one"),
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


@pytest.mark.parametrize("other", [{"epochs": 2.5}, {"minutes": 30}])
def test_the_length_of_a_tagger_is_given_once(other):
    (line,) = _lines(_with("tagger", total_steps=100, **other))
    (name,) = other
    assert line == f"{name}={other[name]}: give the length once, as this or as total_steps"
    assert not _lines(_with("tagger", **other))


def test_a_missing_setting_is_named():
    values = flatten(load_config("quickstart"))
    del values["total_steps"], values["loss.name"]
    assert [line.strip() for line in _lines(values)] == [
        "2 settings are invalid:",
        "total_steps is missing: Total number of updates. Give a whole number, 0 (only evaluates "
        "init_from) or more",
        "loss.name is missing: Name of the loss; its section has the arguments. Give one of "
        "weighted, sigmoid, asymmetric, focal, two_way, softmax",
    ]


def test_what_is_not_given_has_its_default():
    few = {
        "data.folder": "d", "batch_size": 8, "total_steps": 9, "loss.name": "sigmoid",
        "schedule.name": "cosine", "schedule.cosine.learning_rate": 0.1,
    }  # fmt: skip
    config = settings.parse(few)
    assert config.optimizer.momentum == 0.9
    assert config.schedule.cosine.total_steps == 0
    assert config.schedule.staircase is None
    assert settings.replaced(config, {"optimizer.momentum": 0.5}).optimizer.momentum == 0.5
    with pytest.raises(settings.ConfigError, match=r"optimizer\.momentum=2: give a number"):
        settings.replaced(config, {"optimizer.momentum": 2})


def test_nothing_changes_a_setting():
    config = load_config("quickstart")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.optimizer.momentum = 0.5


def test_every_path_is_at_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    config = load_config("finetune", init_from="~/w", **{"data.folder": "~/d"})
    assert (config.init_from, config.data.folder) == ("/home/me/w", "/home/me/d")


def test_all_problems_come_at_once():
    changes = {"seed": -1, "log_every": -1, "data.order": "random", "crop.area": (1.0, 0.1)}
    first, *lines = _lines(_with("quickstart", **changes))
    assert first == "4 settings are invalid:"
    assert sorted(line.strip().partition("=")[0] for line in lines) == sorted(changes)


def test_an_unknown_task_is_named():
    message = "task='evalute' is none of train, .*did you mean 'evaluate'"
    with pytest.raises(settings.ConfigError, match=message):
        settings.parse(_with("evaluate", task="evalute"))


def test_paths_must_be_there_unless_they_are_not_needed(tmp_path):
    there, nowhere, workdir = str(tmp_path), str(tmp_path / "no"), str(tmp_path / "w")
    finetuning = _with("finetune", "224", **{"data.folder": there, "init_from": nowhere})
    (line,) = _lines(finetuning, workdir=workdir)
    assert line.startswith(f"init_from={nowhere!r}: this path does not exist: give a workdir")
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
    assert set(losses.LOSSES) == set(build_loss._LOSSES)
    assert training.VIEWS == views.VIEW_NAMES
    choices = {
        "schedule.name": tuple(build._SCHEDULES),
        "sharding.name": sharding.MODES,
        "crop.interpolation": typing.get_args(transforms.Interpolation),
    }
    for name, names in choices.items():
        assert tasks.TABLES["train"][name].rule.names == names
    assert tasks.TABLES["classify"]["format"].rule.names == (*tag_files.ENDINGS, "")
    assert tasks.TABLES["export_features"]["format"].rule.names == feature_formats.FORMATS
