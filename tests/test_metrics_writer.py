# SPDX-License-Identifier: BSD-3-Clause
import json

import pytest

from mlimages_jax import metrics_writer
from mlimages_jax.metrics_writer import EVENTS_SECONDS, MetricsWriter
from tests import bucket


@pytest.fixture
def clock(monkeypatch):
    now = [1_000.0]
    monkeypatch.setattr(metrics_writer.time, "monotonic", lambda: now[0])
    return now


def test_every_run_adds_to_the_lines_and_has_its_events(tmp_path):
    for start in (0, 2):
        writer = MetricsWriter(tmp_path, start_step=start)
        writer.write(start + 1, {"loss": 0.5})
        writer.write(start + 2, {"loss": float("nan")})
        writer.close()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [row["loss"] for row in rows] == [0.5, None, 0.5, None]
    assert list((tmp_path / "events").glob("events*"))


def test_a_bucket_gets_every_line_at_once_and_the_events_now_and_then(tmp_path, clock):
    with bucket.in_folder(tmp_path) as place:
        writer = MetricsWriter(place / "run", start_step=0)
        sizes = []
        for step, seconds in ((1, 1), (2, EVENTS_SECONDS), (3, 1)):
            clock[0] += seconds
            writer.write(step, {"loss": 0.5})
            lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
            assert [json.loads(line)["step"] for line in lines] == list(range(1, step + 1))
            sizes.append(_bytes_of_events(tmp_path))
        writer.close()
    assert sizes[0] == 0 < sizes[1] == sizes[2] < _bytes_of_events(tmp_path)


def _bytes_of_events(folder) -> int:
    return sum(file.stat().st_size for file in folder.glob("run/events/events*"))
