# SPDX-License-Identifier: BSD-3-Clause
import contextlib

from mlimages_jax.prepare.download import command
from mlimages_jax.prepare.download.hosts import part_of
from mlimages_jax.prepare.download.part_order import longest_first
from tests.prepare.test_download import fails

PARTS = 8


def hosts_of(part, count):
    """Names of some hosts that are of one part."""
    names = (f"host{i}.test" for i in range(10_000))
    return [name for name in names if part_of(f"http://{name}/", PARTS) == part][:count]


def write_list(path, rows_by_host):
    rows = [
        f"http://{host}/{i}\t3:1\n" for host, count in rows_by_host.items() for i in range(count)
    ]
    path.write_text("".join(rows))
    return path


def order(*lists, **changes):
    return longest_first(lists, PARTS, **{"connections": 100, "per_host": 10} | changes)


def test_the_part_with_the_most_rows_begins_first(tmp_path):
    rows = {5: 40, 2: 90, 7: 60}
    lists = [
        write_list(tmp_path / f"{part}.txt", dict.fromkeys(hosts_of(part, 10), count // 10))
        for part, count in rows.items()
    ]
    assert order(*lists) == [2, 7, 5, 0, 1, 3, 4, 6]


def test_one_large_host_takes_longer_than_many_small_ones(tmp_path):
    one, many = hosts_of(6, 1), hosts_of(1, 30)
    urls = write_list(tmp_path / "urls.txt", dict.fromkeys(many, 2) | {one[0]: 20})
    assert order(urls)[:2] == [6, 1]
    assert order(urls, per_host=100)[:2] == [1, 6]


def test_of_long_lists_some_rows_are_counted(tmp_path):
    urls = write_list(tmp_path / "urls.txt", {hosts_of(4, 1)[0]: 700, hosts_of(3, 1)[0]: 300})
    with urls.open("a") as file:
        file.write("\n \nno url\n" + "x" * 100_000)
    assert order(urls, sample=50)[:2] == [4, 3]


def test_a_download_begins_with_it(tmp_path, monkeypatch):
    begun = []

    class Idle:
        threads = 1

        def map_unordered(self, function, parts):
            begun.extend(parts)
            return iter(())

    monkeypatch.setattr(command.EngineOptions, "open", lambda _: contextlib.nullcontext(Idle()))
    urls = write_list(tmp_path / "urls.txt", dict.fromkeys(hosts_of(5, 3), 1))
    fails("no image shards", urls, "--output", tmp_path / "set", f"--shards={PARTS}")
    assert begun == [5, 0, 1, 2, 3, 4, 6, 7]
