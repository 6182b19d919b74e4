# SPDX-License-Identifier: BSD-3-Clause
import json
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from mlimages_jax.monitoring import metrics_writer
from mlimages_jax.monitoring.metrics_writer import EVENTS_SECONDS, MetricsWriter
from tests.support import bucket


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


def _read_by_tensorboard(folder) -> dict[str, list[int]]:
    """Steps by name, as its event accumulator keeps them: a START removes what is at or behind it.

    tensorboard/backend/event_processing/event_accumulator.py; it is not installed here, and gave
    the same for these files.
    """
    kept: dict[str, list[int]] = {}
    for path in sorted((folder / "events").iterdir()):
        for event in event_file_loader(path):
            if event.HasField("session_log") and event.session_log.status == SessionLog.START:
                kept = {name: [s for s in steps if s < event.step] for name, steps in kept.items()}
            for value in event.summary.value:
                kept.setdefault(value.tag, []).append(event.step)
    return kept


def event_file_loader(path):
    """The events of a file: records of a length, its checksum, the data and theirs."""
    data, position = path.read_bytes(), 0
    while position < len(data):
        (length,) = struct.unpack_from("<Q", data, position)
        yield Event.FromString(data[position + 12 : position + 12 + length])
        position += length + 16


def test_tensorboard_forgets_what_is_done_again_and_nothing_else(tmp_path):
    for start, end in ((0, 7), (4, 6), (6, 9)):  # saved at 4 and 6, killed behind 7 and at 6
        writer = MetricsWriter(tmp_path, start_step=start)
        for step in range(start + 1, end + 1):
            writer.write(step, {"loss": 0.5})
        writer.close()
    assert _read_by_tensorboard(tmp_path) == {"loss": list(range(1, 10))}


def test_tensorboard_keeps_the_points_of_earlier_evaluations(tmp_path):
    for step in (2, 6, 4):  # a later evaluation of an earlier checkpoint
        writer = MetricsWriter(tmp_path, start_step=None)
        writer.write(step, {"val/mAP": 0.5})
        writer.close()
    assert sorted(_read_by_tensorboard(tmp_path)["val/mAP"]) == [2, 4, 6]
    assert len(list((tmp_path / "events").iterdir())) == 3
