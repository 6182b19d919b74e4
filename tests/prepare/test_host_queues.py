# SPDX-License-Identifier: BSD-3-Clause
import asyncio
import time

from mlimages_jax.prepare.download.host_queues import HostQueues


def run(test):
    asyncio.run(asyncio.wait_for(test(), 10))


def test_hosts_take_turns():
    async def test():
        queues = HostQueues(per_host=2)
        for job in range(3):
            queues.add("a", job)
        queues.add("b", 10)
        assert [await queues.get() for _ in range(3)] == [("a", 0), ("b", 10), ("a", 1)]
        getting = asyncio.create_task(queues.get())
        await asyncio.sleep(0.01)
        assert not getting.done()  # two of host a are in work
        queues.done("a")
        assert await getting == ("a", 2)

    run(test)


def test_a_delayed_job_comes_later():
    async def test():
        queues = HostQueues(per_host=8)
        start = time.monotonic()
        queues.add("a", "late", delay=0.1)
        queues.add("a", "latest", delay=0.2)
        queues.add("a", "now")
        assert [(await queues.get())[1] for _ in range(3)] == ["now", "late", "latest"]
        assert time.monotonic() - start >= 0.2

    run(test)


def test_a_paused_host_holds_up_nobody_else():
    async def test():
        queues = HostQueues(per_host=8)
        start = time.monotonic()
        for job in range(3):
            queues.add("a", job)
        assert await queues.get() == ("a", 0)
        queues.pause("a", 0.1)
        queues.pause("a", 0.01)  # the longer one holds
        queues.add("b", 10)
        assert await queues.get() == ("b", 10)
        assert time.monotonic() - start < 0.1
        assert [await queues.get() for _ in range(2)] == [("a", 1), ("a", 2)]
        assert time.monotonic() - start >= 0.1

    run(test)


def test_idle_hosts_are_forgotten():
    async def test():
        queues = HostQueues(per_host=1)
        for host in map(str, range(100)):
            queues.add(host, host)
        for _ in range(100):
            queues.done((await queues.get())[0])
        assert not queues._hosts
        queues.add("7", "again")
        assert await queues.get() == ("7", "again")

    run(test)


def test_limits_hold_for_any_order_of_events():
    async def test():
        queues = HostQueues(per_host=3)
        active = dict.fromkeys("abc", 0)
        finished = []

        async def work(host, job):
            active[host] += 1
            assert active[host] <= 3
            await asyncio.sleep(0.001 * (job % 3))
            if job % 7 == 0 and job < 1000:
                queues.add(host, job + 1000, delay=0.002)  # once more
            else:
                finished.append(job % 1000)
            active[host] -= 1
            queues.done(host)

        for job in range(1, 201):
            queues.add("abc"[job % 3], job)
        tasks = [asyncio.create_task(work(*await queues.get())) for _ in range(200 + 28)]
        await asyncio.gather(*tasks)
        assert sorted(finished) == list(range(1, 201))

    run(test)
