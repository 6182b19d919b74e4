# SPDX-License-Identifier: BSD-3-Clause
"""`config.data.order` and `config.data.copy_to`, from the configuration to a whole training."""

import jax
import numpy as np
import pytest

from mlimages_jax import settings
from mlimages_jax.settings import build, restart
from mlimages_jax.training.train import train
from tests.support import record_files
from tests.support.small_run import small_config

ALONE = {"evaluation.splits": (), "loss.name": "sigmoid"}


def test_there_is_a_stream_a_group():
    config = small_config("", batch_size=32, group_size=4)
    assert build.num_streams(config) == 1
    config = settings.replaced(config, {"data.order": "streams"})
    assert build.num_streams(config) == 8
    config = settings.replaced(config, {"group_size": 0})
    assert build.num_streams(config) == 1, "the whole batch is one group"


def test_streams_and_another_batch_are_refused():
    changes = {"resize": ((4, 48, 8),), "loss.name": "sigmoid"}
    config = small_config("", batch_size=16, **changes)
    assert len(build.stages(config)) == 2
    with pytest.raises(build.ConfigError, match=r"batch size in config\.resize must stay"):
        settings.replaced(config, {"data.order": "streams"})
    config = settings.replaced(config, {"data.order": "streams", "resize": ((4, 48, 16),)})
    assert len(build.stages(config)) == 2


def test_a_restart_may_copy_but_not_change_the_order():
    saved = restart.values(small_config("here"))
    moved = {"data.copy_to": "/ssd", "data.folder": "there"}
    restart.check_unchanged(saved, restart.values(small_config("here", **moved)))
    other = restart.values(small_config("here", **{"data.order": "streams"}))
    with pytest.raises(build.ConfigError, match=r"data\.order: 'global' in the checkpoint"):
        restart.check_unchanged(saved, other)


@pytest.mark.slow
def test_streams_copied_and_continued_with_larger_images_end_in_the_same_bits(tmp_path):
    """In one go, from where the set is; and in two, from copies: 4 streams, two image sizes."""
    folder = record_files.write_set(tmp_path / "set", (7,) * 8)
    changes = ALONE | {"data.order": "streams", "resize": ((5, 40, 16),), "total_steps": 8}
    whole = train(small_config(folder, **changes), tmp_path / "whole")
    copies = {"data.copy_to": str(tmp_path / "ssd")}
    parts = changes | copies
    train(small_config(folder, **parts | {"total_steps": 6}), tmp_path / "parts")
    for path in record_files.files_of(folder):
        assert list((tmp_path / "ssd").rglob(path.name)), "all are copied"
    continued = train(small_config(folder, **parts), tmp_path / "parts")
    for mine, other in zip(jax.tree.leaves(continued), jax.tree.leaves(whole), strict=True):
        if not jax.dtypes.issubdtype(mine.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(mine, other)
