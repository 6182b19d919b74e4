# SPDX-License-Identifier: BSD-3-Clause
"""A set of drawn images; programs of trainings are compiled in a moment."""

import pytest

from tests.conftest import QUICK_FLAGS
from tfds_builders import shapes


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """A built data set of 64 + 20 drawn images."""
    return shapes.build(tmp_path_factory.mktemp("data"), num_train=64, num_val=20, size=48)


@pytest.fixture(scope="module", autouse=True)
def quickly_compiled():
    """Processes and signals are the subject, not what a compiler makes of a network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        patch.setenv("XLA_FLAGS", QUICK_FLAGS)
        yield
