# SPDX-License-Identifier: BSD-3-Clause
import numpy as np
import pytest

from mlimages_jax import settings
from mlimages_jax.settings import build
from tests.support.small_run import small_config


def _loss(priors, **changes):
    config = settings.checked(small_config("unused", **{"loss.name": "sigmoid", **changes}))
    return build.loss(config, priors)[0].keywords


def test_weights_from_frequencies_by_hand():
    weights = build.frequency_weights(np.array([0.5, 0.2, 0.001, 0.999, 0.8]), limit=20.0)
    np.testing.assert_allclose(weights, [1, 4, 20, 1 / 20, 1 / 4], rtol=1e-6)
    assert weights.dtype == np.float32


def test_frequencies_reach_the_loss_only_when_asked_for():
    priors = np.array([0.5, 0.2])
    chosen = {"loss.positive_weight": "frequency", "loss.positive_weight_limit": 3.0}
    np.testing.assert_allclose(_loss(priors, **chosen)["positive_weights"], [1, 3])
    assert "positive_weights" in _loss(priors, **chosen, **{"loss.name": "focal"})
    assert "positive_weights" not in _loss(priors)
    assert "positive_weights" not in _loss(None, **chosen)  # a plan knows no frequencies


@pytest.mark.parametrize("name", ["weighted", "softmax", "two_way"])
def test_losses_without_such_weights_refuse_them(name):
    with pytest.raises(settings.ConfigError, match=f"loss.name='{name}' has no such weights"):
        _loss(None, **{"loss.name": name, "loss.positive_weight": "frequency"})


def test_weights_leave_the_bias_and_the_probabilities_as_they_are():
    config = small_config("unused", **{"loss.name": "sigmoid", "loss.positive_weight": "frequency"})
    priors = np.array([0.5, 0.2])
    logits = build.prior_logits(config.loss, priors)
    np.testing.assert_allclose(build.probabilities(config.loss)(logits), priors, rtol=1e-6)
