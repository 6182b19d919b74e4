# SPDX-License-Identifier: BSD-3-Clause
import json

import pytest
from etils import epath

from mlimages_jax.settings import ConfigError
from mlimages_jax.training import recipe_file

CHOSEN = {
    "total_steps": 10, "crop.area": [0.7, 1.0], "augmentation.hue": 0.2,
    "augmentation.rand_augment": 2,
}  # fmt: skip


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe_file.step_folders, "latest_step", _newest)
    return epath.Path(tmp_path)


def _newest(folder):
    """Stands for the search in a checkpoint folder: any number is a step."""
    return 1 if folder.exists() and any(one.name.isdigit() for one in folder.iterdir()) else None


@pytest.mark.parametrize("run", ["", "fold_0"])
def test_choices_count_once_a_training_has_begun(workdir, run):
    recipe_file.write(workdir, CHOSEN)
    assert recipe_file.read(workdir) is None
    (workdir / run / "checkpoints").mkdir(parents=True)
    assert recipe_file.read(workdir) is None
    (workdir / run / "checkpoints/1").mkdir()
    assert recipe_file.read(workdir) == CHOSEN


def test_choices_stay_while_all_checkpoints_are_damaged(workdir):
    """The start is refused then, and goes on once one of them is back from a backup."""
    recipe_file.write(workdir, CHOSEN)
    (workdir / "checkpoints/1.damaged").mkdir(parents=True)
    assert recipe_file.read(workdir) == CHOSEN


def test_without_a_file_all_is_open(workdir):
    (workdir / "checkpoints/1").mkdir(parents=True)
    assert recipe_file.read(workdir) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "Expecting value"),
        ('{"total_steps": 10', "Expecting"),
        ("[]", "no table of settings"),
        ("null", "no table of settings"),
        (json.dumps(CHOSEN | {"crop.areas": 1}), "there is no setting 'crop.areas'"),
        (json.dumps({"crop.area": [0.7, 1.0]}), "total_steps is not a number of steps"),
        (json.dumps(CHOSEN | {"total_steps": "1000"}), "total_steps is not a number of steps"),
        (json.dumps(CHOSEN | {"total_steps": 0}), "total_steps is not a number of steps"),
    ],
)
def test_a_damaged_file_is_named(workdir, text, problem):
    (workdir / "checkpoints/1").mkdir(parents=True)
    (workdir / "recipe.json").write_text(text)
    with pytest.raises(ConfigError, match=f"recipe.json: .*{problem}.*restore it, or delete it"):
        recipe_file.read(workdir)
