# SPDX-License-Identifier: BSD-3-Clause
import json
import logging

import pytest

from mlimages_jax import settings
from mlimages_jax.checkpoints import manager, saved_model
from mlimages_jax.settings import config_file, renamed, restart
from tests.support import small_model
from tests.support.small_run import load_config, small_config

OLD = {  # of a training
    "input.max_bad_pictures": 7,
    "evaluation.protocols": ("central", "whole"),
    "optimizer.average_decay": 0.9,
    "optimizer.learning_rate_factors": (("head/*", 10.0),),
}


@pytest.fixture(autouse=True)
def _log(caplog):
    renamed._tell.cache_clear()
    caplog.set_level(logging.INFO)


OF_OTHER_TASKS = {
    "evaluate": {"averaged": False, "data.reassessed": "real.json"},
    "export_features": {"averaged": False, "view.protocol": "ten_crop"},
    "classify": {"dictionary": "classes.txt", "view.protocol": "whole"},
    "thresholds": {"averaged": False, "view.protocol": "central"},
}


def _are_taken(config, old=OLD) -> bool:
    values = settings.flatten(config)
    return all(values[renamed.NEW_NAMES[name]] == value for name, value in old.items())


def _each_is_told_once(caplog, old=OLD):
    lines = [record.getMessage() for record in caplog.records]
    for name in old:
        told = f": {name} is now called {renamed.NEW_NAMES[name]}"
        assert sum(line.endswith(told) for line in lines) == 1, lines


def test_the_table_names_settings_that_are_there():
    names = {name for table in settings.tasks.TABLES.values() for name in table}
    assert set(renamed.NEW_NAMES.values()) <= names
    assert not renamed.NEW_NAMES.keys() & names
    assert renamed.NEW_NAMES.keys() == {*OLD, *(n for old in OF_OTHER_TASKS.values() for n in old)}


@pytest.mark.parametrize("task", OF_OTHER_TASKS)
def test_old_names_of_other_tasks(task, caplog):
    old = OF_OTHER_TASKS[task]
    overrides = [config_file.Override(name, str(value)) for name, value in old.items()]
    assert _are_taken(config_file.read_config(f"configs/{task}.py", overrides), old)
    _each_is_told_once(caplog, old)
    assert _are_taken(load_config(task, **old), old)


def test_old_names_in_a_file(tmp_path, caplog):
    """As a person's copy of configs/quickstart.py has them."""
    path = tmp_path / "own.py"
    path.write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config():\n"
        "    config = ConfigDict()\n"
        "    config.data = ConfigDict({'folder': 'd'})\n"
        "    config.batch_size, config.total_steps = 8, 4\n"
        "    config.loss = ConfigDict({'name': 'sigmoid'})\n"
        "    config.schedule = ConfigDict({'name': 'cosine', 'cosine': {'learning_rate': 0.1}})\n"
        f"    config.input = ConfigDict({{'max_bad_pictures': {OLD['input.max_bad_pictures']}}})\n"
        f"    config.evaluation = ConfigDict({{'protocols': {OLD['evaluation.protocols']}}})\n"
        "    config.optimizer = ConfigDict()\n"
        f"    config.optimizer.average_decay = {OLD['optimizer.average_decay']}\n"
        f"    config.optimizer.learning_rate_factors = {OLD['optimizer.learning_rate_factors']}\n"
        "    return config\n"
    )
    assert _are_taken(config_file.read_config(str(path)))
    _each_is_told_once(caplog)


def test_old_names_on_the_command_line_win_over_the_file(caplog):
    file = "configs/quickstart.py"  # has views and max_bad_images by their new names
    overrides = [config_file.Override(name, str(value)) for name, value in OLD.items()]
    assert _are_taken(config_file.read_config(file, overrides))
    _each_is_told_once(caplog)
    assert _are_taken(load_config("quickstart", **OLD))
    assert _are_taken(settings.replaced(load_config("quickstart"), OLD))


def test_a_checkpoint_of_before_goes_on_and_is_used(tmp_path, caplog):
    config = small_config("here", **OLD)
    saved = restart.values(config)
    for old in OLD:
        section, _, name = renamed.NEW_NAMES[old].partition(".")
        saved[section][old.partition(".")[2]] = saved[section].pop(name)
    folder = small_model.save(tmp_path, saved)
    found = manager.config_of(folder)
    assert found == restart.values(config)
    restart.check_unchanged(json.loads(json.dumps(saved)), restart.values(config))
    assert saved_model.usage(found, step=8).views == ("central", "whole")
    other = restart.values(small_config("here", **OLD | {"optimizer.average_decay": 0.5}))
    with pytest.raises(settings.ConfigError, match=r"ema_decay: 0\.9 in the checkpoint, 0\.5 now"):
        restart.check_unchanged(saved, other)


def test_a_checkpoint_that_lacks_settings_was_trained_with_their_defaults():
    """The quickstart had no section of the asymmetric loss, and used that loss's own values."""
    saved = restart.values(small_config("here", **{"loss.name": "asymmetric"}))
    del saved["loss"]["asymmetric"]
    current = restart.values(small_config("here", **{"loss.name": "asymmetric"}))
    restart.check_unchanged(saved, current)
    other = small_config("here", **{"loss.name": "asymmetric", "loss.asymmetric.clip": 0.1})
    with pytest.raises(settings.ConfigError, match=r"clip: 0\.05 in the checkpoint, 0\.1 now"):
        restart.check_unchanged(saved, restart.values(other))
