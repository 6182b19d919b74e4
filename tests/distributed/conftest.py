# SPDX-License-Identifier: BSD-3-Clause
"""A set of drawn images; child processes compile their trainings in a moment."""

import pytest

from tfds_builders import shapes


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """A built data set of 64 + 20 drawn images."""
    return shapes.build(tmp_path_factory.mktemp("data"), num_train=64, num_val=20, size=48)


@pytest.fixture(scope="module", autouse=True)
def _quickly(children_compile_quickly):
    """Processes and signals are the subject."""
