# SPDX-License-Identifier: BSD-3-Clause
import pytest

from mlimages_jax.plan import PlanError, chips, kinds

CHIP = chips.Chip(
    "a chip",
    1e9,
    1e12,
    1e12,
    link=100.0,
    domain=4,
    host_chips=2,
    network=10.0,
    sources="",
    kind=kinds.GPU,
)


def test_inside_a_domain_the_links_count():
    assert chips.collective_seconds(CHIP, 1, moved=1000) == 0
    assert chips.collective_seconds(CHIP, 4, moved=1000) == pytest.approx(1000 * 3 / 4 / 100)


def test_beyond_it_the_hosts_network_counts():
    """Two domains of two hosts: half of the bytes leave a domain over 2 x 10 bytes a second."""
    assert chips.collective_seconds(CHIP, 8, moved=1000) == pytest.approx(1000 / 2 / 20)


def test_what_has_no_source_is_not_guessed():
    assert chips.collective_seconds(CHIP._replace(network=None), 8, moved=1000) is None


def test_an_unknown_chip_is_refused_with_the_known_ones():
    with pytest.raises(PlanError, match=r"chip='h1000' is none of v3, v4, v5e, .*h100"):
        chips.find("h1000")


def test_every_figure_has_a_source_that_the_module_explains():
    for chip in chips.CHIPS.values():
        for source in chip.sources.split():
            assert source in chips.__doc__
