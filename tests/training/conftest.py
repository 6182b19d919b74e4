# SPDX-License-Identifier: BSD-3-Clause
"""Small trainings share their compiled programs, and a set of drawn images."""

import pytest

from tests.support.shared_programs import sharing_programs
from tfds_builders import shapes

__all__ = ["sharing_programs"]


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """A built data set of 64 + 20 drawn images."""
    return shapes.build(tmp_path_factory.mktemp("data"), num_train=64, num_val=20, size=48)
