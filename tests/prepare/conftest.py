# SPDX-License-Identifier: BSD-3-Clause
"""One server of small images for all tests of the preparation that need one."""

import pytest

from benchmarks.peers.image_server import ImageServer


@pytest.fixture(scope="session")
def image_server():
    with ImageServer(bases=2, width=96, height=64) as server:
        yield server
