# SPDX-License-Identifier: BSD-3-Clause
"""The server does what its OpenAPI says, for requests that it allows and for others."""

import contextlib

import hypothesis
import pytest

pytest.importorskip("fastapi", reason="pip install -e '.[serve]'")
import httpx

from tests.support import exported_colours
from tests.support.running_server import running

EXAMPLES = 60  # of each operation and mode
OPERATIONS = [
    ("POST", "/v1/tags"),
    ("POST", "/v1/features"),
    ("GET", "/v1/exported/{row}"),
    ("GET", "/v1/model"),
    ("GET", "/healthz"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    nearest = exported_colours.nearest_images(tmp_path_factory.mktemp("export"))
    with running(nearest=nearest) as served:
        yield f"{served.address}/openapi.json"


def test_all_operations_are_tested(address):
    described = httpx.get(address, timeout=60).json()["paths"]
    found = {(method.upper(), path) for path, methods in described.items() for method in methods}
    assert found == set(OPERATIONS)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["positive", "negative"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=" ".join)
def test_every_answer_is_one_that_is_described(address, operation, mode):
    schemathesis = pytest.importorskip("schemathesis")
    from schemathesis.generation import GenerationMode
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    method, path = operation
    described = schemathesis.openapi.from_url(address)[path][method]

    @hypothesis.settings(
        max_examples=EXAMPLES, deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    @hypothesis.given(case=described.as_strategy(generation_mode=GenerationMode(mode)))
    def check(case):
        # A body may be well-formed without being an image.
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    # An operation without parameters has nothing that could be wrong.
    with contextlib.suppress(hypothesis.errors.Unsatisfiable):
        check()
