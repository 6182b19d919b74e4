# SPDX-License-Identifier: BSD-3-Clause
"""One server of small pictures for all tests of the preparation that need one."""

import pytest

from benchmarks.peers.picture_server import PictureServer


@pytest.fixture(scope="session")
def picture_server():
    with PictureServer(bases=2, width=96, height=64) as server:
        yield server
