# SPDX-License-Identifier: BSD-3-Clause
import numpy as np
import pytest

from mlimages_jax.distributed import agreement, collectives
from tests.support import two_processes


def test_one_process_hears_itself():
    assert not collectives.is_one_of_many()
    assert collectives.process_number() == 0
    assert collectives.exchanged("a") == ["a"]
    assert collectives.of_process_0([1, None, "x"]) == [1, None, "x"]
    np.testing.assert_array_equal(collectives.gathered(np.arange(3)), [[0, 1, 2]])
    assert collectives.gathered_lines(["a", ""]) == ["a", ""]
    collectives.barrier("nobody else")


@pytest.mark.slow
def test_two_processes_hear_each_other():
    two_processes.run("""
import numpy as np
from mlimages_jax.distributed import collectives
number = collectives.process_number()
assert collectives.is_one_of_many() and number == jax.process_index()
assert collectives.exchanged("" if number else "0\\n") == ["0\\n", ""]
for _ in range(2):  # the service would refuse the same name twice
    collectives.barrier("both")
    assert collectives.of_process_0({"number": number}) == {"number": 0}
found = collectives.gathered({"a": np.full(3, number)})
np.testing.assert_array_equal(found["a"], [[0, 0, 0], [1, 1, 1]])
for lines in (["one", "tw\u00f6"], ["x" * 300], []):
    own = [f"{number} {line}" for line in lines]
    both = [f"{each} {line}" for each in (0, 1) for line in lines]
    assert collectives.gathered_lines(own) == both
assert collectives.gathered_lines(["", "a"] if number else []) == ["", "a"]
""")


def test_processes_that_hold_different_values_are_told_which(monkeypatch):
    monkeypatch.setattr(collectives, "exchanged", lambda text: [text, text.upper()])
    message = "IMAGES: None on process 0, 'AB' on process 1"
    with pytest.raises(agreement.DifferentProcessesError, match=message):
        agreement.check_same({"images": "ab"})
