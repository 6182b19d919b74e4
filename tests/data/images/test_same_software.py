# SPDX-License-Identifier: BSD-3-Clause
import pickle

import pytest

from mlimages_jax.data.images import jpeg, same_software
from mlimages_jax.data.images.same_software import OtherSoftwareError, WithSameSoftware


def test_a_part_is_done_beside_the_same_software():
    assert pickle.loads(pickle.dumps(WithSameSoftware(abs)))(-3) == 3


def test_a_worker_without_the_compiled_decoder_says_so(monkeypatch):
    monkeypatch.setattr(jpeg, "_jpeg", object())
    sent = pickle.dumps(WithSameSoftware(abs))
    monkeypatch.setattr(jpeg, "_jpeg", None)
    with pytest.raises(
        OtherSoftwareError, match="the compiled decoder: not built, there built"
    ) as e:
        pickle.loads(sent)(-3)
    assert "libjpeg-dev" in str(e.value)


def test_a_worker_with_another_release_names_it(monkeypatch):
    sent = pickle.dumps(WithSameSoftware(abs))
    older = {name: f"0 of {name}" for name in same_software.releases()}
    monkeypatch.setattr(same_software, "releases", lambda: older)
    with pytest.raises(OtherSoftwareError, match=r"pillow: 0 of pillow, there \d"):
        pickle.loads(sent)(-3)
