# SPDX-License-Identifier: BSD-3-Clause
"""The model of a download by many workers, on cases that can be worked out by hand."""

import dataclasses
import sys

import numpy as np
import pytest

from benchmarks.peers.crawl_model import (
    Cluster,
    Hosts,
    Parts,
    Run,
    Worker,
    assign,
    make_parts,
    shard_fractions,
    simulate,
    zipf_urls,
)

WORKER = Worker(row_seconds=0.001, connections=10, per_host=4, bandwidth=1e6)


def hosts(*urls, seconds=0.5, stored=1.0, size=100):
    counts = np.array(urls)
    ones = np.ones(len(urls))
    return Hosts(counts, seconds * ones, stored * counts, size * counts * 1.0)


def parts(*seconds, images=100, start=0.0):
    """Parts that take these seconds, with as many images each."""
    values = np.array(seconds, float)
    count = np.full(len(seconds), images)
    zeros = np.zeros(len(seconds))
    bounds = {"worker": values, "connections": zeros, "host": zeros, "bandwidth": zeros}
    return Parts(count, count * 1.0, bounds, start)


def only(found):
    return {name: values[0] for name, values in found.bounds.items()}


def test_one_host_is_asked_on_as_many_connections_as_a_host_allows():
    found = make_parts(hosts(100), np.array([0]), count=1, worker=WORKER)
    assert only(found) == pytest.approx(
        {"worker": 0.1, "connections": 5.0, "host": 12.5, "bandwidth": 0.01}
    )
    assert found.seconds[0] == 12.5 and found.binding[0] == 2


def test_many_hosts_share_the_connections_of_the_worker():
    found = make_parts(hosts(*[100] * 5), np.zeros(5, int), count=1, worker=WORKER)
    assert found.seconds[0] == pytest.approx(500 * 0.5 / 10)  # not 12.5, what each host needs


def test_hosts_go_to_their_parts_and_a_part_may_be_empty():
    found = make_parts(hosts(30, 20, 10), np.array([0, 2, 0]), count=3, worker=WORKER)
    assert found.urls.tolist() == [40, 0, 20]
    assert found.bounds["host"].tolist() == pytest.approx([3.75, 0, 2.5])


def test_ranks_share_the_urls_as_the_law_of_zipf_says():
    urls = zipf_urls(11_000, 3, exponent=1)  # 1 + 1/2 + 1/3 = 11/6
    assert urls.tolist() == [6_000, 3_000, 2_000]
    assert zipf_urls(10**9, 1000, exponent=0.9).sum() == 10**9


def test_every_part_gets_hosts_and_a_seed_the_same_ones():
    first = assign(1000, 7, seed=1)
    assert set(first) == set(range(7)) and (first == assign(1000, 7, seed=1)).all()


def test_the_longest_part_last_keeps_the_others_waiting():
    assert simulate(parts(6, 6, 10), Cluster(workers=2)).seconds == 16
    found = simulate(parts(6, 6, 10), Cluster(workers=2, longest_first=True))
    assert found.ends == (6, 10, 12)
    assert found.utilisation(2) == pytest.approx(22 / 24)


def test_the_driver_serves_one_worker_at_a_time():
    found = simulate(parts(0, 0, 0), Cluster(workers=3, driver_seconds=0.5))
    assert found.seconds == 3.0 and found.driver == 3.0  # three given out, three taken back


def test_a_part_has_the_start_of_its_process():
    assert simulate(parts(5, start=2), Cluster(workers=1)).seconds == 7


def run(found, cluster, *lifetimes):
    forever = float("inf")
    return Run(found, cluster, iter([*lifetimes, forever, forever])).run()


def test_a_death_costs_what_was_not_yet_a_shard():
    # 100 images in 100 s, shards of 10: at 35 s three shards are committed.
    cluster = Cluster(workers=1, shard_images=10, replace_seconds=60)
    found = run(parts(100), cluster, 35.0)
    assert found.deaths == {0: 1} and found.lost == pytest.approx(5)
    assert found.seconds == pytest.approx(35 + 60 + 70)


def test_another_worker_takes_the_part_of_a_dead_one():
    cluster = Cluster(workers=2, shard_images=10, replace_seconds=1000)
    found = run(parts(100, 40), cluster, 35.0)
    assert found.ends == pytest.approx((40, 110))  # the other worker, after its own part


def test_a_resumed_part_reads_what_was_committed():
    cluster = Cluster(workers=1, shard_images=10, resume_row_seconds=0.1)
    assert run(parts(100), cluster, 35.0).seconds == pytest.approx(35 + 3 + 70)


def test_shards_are_complete_after_images_or_rows_or_a_time():
    found = Parts(np.array([1000]), np.array([100.0]), parts(50).bounds)
    limits = {"shard_images": 10, "shard_rows": 1000}
    assert shard_fractions(found, Cluster(workers=1, **limits)) == pytest.approx([0.1])
    limits["shard_rows"] = 20
    assert shard_fractions(found, Cluster(workers=1, **limits)) == pytest.approx([0.02])
    limits["shard_seconds"] = 0.5
    assert shard_fractions(found, Cluster(workers=1, **limits)) == pytest.approx([0.01])


def test_a_worker_that_dies_before_its_first_shard_begins_anew():
    cluster = Cluster(workers=1, shard_images=1000)
    found = run(parts(100), cluster, 99.0)
    assert found.lost == pytest.approx(99) and found.seconds == pytest.approx(199)


def test_a_death_in_a_part_without_urls_costs_its_start_again():
    found = run(parts(0, images=0, start=10), Cluster(workers=1, replace_seconds=1), 4.0)
    assert found.seconds == pytest.approx(4 + 1 + 10) and found.lost == 0


def test_deaths_come_at_their_rate():
    cluster = Cluster(workers=10, shard_images=1, lifetime=50.0)
    found = simulate(parts(*[100] * 200, images=1000), cluster)
    assert found.deaths.total() == pytest.approx(found.busy / 50, rel=0.15)
    assert found.busy == pytest.approx(20_000 + found.lost, rel=1e-6)
    assert dataclasses.replace(found) == simulate(parts(*[100] * 200, images=1000), cluster)


@pytest.fixture(scope="module")
def script():
    from tests.test_benchmarks import load

    return load("internet_scale")


def command(script, monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["internet_scale.py", *words])
    script.main()
    return capsys.readouterr().out


def test_silent_hosts_are_given_up_after_so_many_requests(script):
    plan = script.Plan(urls=4_000, hosts=4, exponent=0.0, silent_every=4, silent_seconds=90.0)
    hosts = script.crawl_plan.hosts_of(plan)
    assert hosts.seconds.tolist() == [0.4, 0.4, 0.4, 90.0] and hosts.stored[3] == 0
    limited = script.crawl_plan.hosts_of(dataclasses.replace(plan, give_up_after=50))
    assert limited.urls[3] * limited.seconds[3] == pytest.approx(50 * 90)


def test_a_plan_says_what_decides(script, monkeypatch, capsys):
    words = ("plan", "--list", "ml-images", "--parts", "1", "--lifetime", "inf", "--no-vary")
    told = command(script, monkeypatch, capsys, *words)
    seconds = 6_941_550 * 0.4 / 128 + 5 + 6_941_550 * 3.4e-6
    assert f"| in all | {seconds / 3600:.1f} h |" in told
    assert "| limit `connections`: parts, largest, sum over workers | 1, " in told


def test_changes_are_named_by_what_differs(script):
    mended = {"per_host": 2, "parts": 3}
    assert script.named({}, mended) == "nothing"
    assert script.named({"parts": 3}, mended) == "parts=3"
    assert script.named(mended, mended) == "all three"
    assert script.named(mended | {"workers": 5}, mended) == "all three, workers=5"


def test_a_download_is_predicted_from_its_list(script):
    case = script.crawl_check.skewed(11_000)
    seconds, bounds = case.predicted(row_seconds=0.001, start_seconds=2.0)
    first = round(11_000 / sum(1 / rank for rank in range(1, 21)))
    assert bounds["host"] == pytest.approx(first * 0.2 / 4)
    assert seconds == pytest.approx(2.0 + bounds["host"])


@pytest.mark.slow
def test_rows_without_sockets_are_compared_with_their_prediction(script, monkeypatch, capsys):
    told = command(script, monkeypatch, capsys, "rows", "--rows", "4000")
    assert "| no sockets | 4,000 | " in told
