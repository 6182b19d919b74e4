# SPDX-License-Identifier: BSD-3-Clause
"""One server of small images for all tests of the preparation that need one."""

import pytest

from benchmarks.peers.image_server import ImageServer


@pytest.fixture(scope="session")
def _shared_image_server():
    with ImageServer(bases=2, width=96, height=64) as server:
        yield server


@pytest.fixture
def image_server(_shared_image_server):
    """A server that has answered nothing yet, whatever tests ran before in the same process."""
    _shared_image_server.forget()
    return _shared_image_server
