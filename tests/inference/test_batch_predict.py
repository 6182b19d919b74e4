# SPDX-License-Identifier: BSD-3-Clause
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlimages_jax.data.images.decode import decode
from mlimages_jax.data.images.views import EvaluationView
from mlimages_jax.data.pipeline import TooManyBadImagesError
from mlimages_jax.distributed import sharding
from mlimages_jax.inference import batch_predict
from mlimages_jax.inference.batch_predict import NO_IMAGE, Predictions
from mlimages_jax.inference.image_source import ImageFiles, open_images
from tests.support import image_files, record_files, user_folder

VIEW = EvaluationView(8, "whole")
COUNT = 21


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Grey images, of levels 10 i; the fourth and the last are broken."""
    folder = tmp_path_factory.mktemp("images")
    for i in range(COUNT):
        data = image_files.jpeg(np.full((16, 24, 3), 10 * i, np.uint8))
        (folder / f"{i:02d}.jpg").write_bytes(data if i not in (3, COUNT - 1) else data[:-12])
    return folder


@pytest.fixture(scope="module")
def images(folder):
    return open_images(folder)


def _levels(weights, images):
    """The mean level times a factor, and the same as a whole number."""
    mean = images.astype(jnp.float32).mean((1, 2))  # [B, 3]
    return {"mean": mean * weights, "level": mean[:, 0].round().astype(jnp.int32)}


def _predictions(source, *, devices=4, batch_size=8, view=VIEW, function=_levels, **arguments):
    mesh = sharding.make_mesh(jax.devices()[:devices])
    weights = jax.device_put(jnp.float32(2), sharding.replicated(mesh))
    arguments = {"num_threads": 2} | arguments
    return Predictions(
        source, view, function, weights, mesh=mesh, batch_size=batch_size, **arguments
    )


def _together(predictions):
    batches = list(predictions)
    positions = np.concatenate([rows.positions for rows in batches])
    outputs = {
        name: np.concatenate([rows.outputs[name] for rows in batches])
        for name in predictions.row_shapes
    }
    errors = {position: error for rows in batches for position, error in rows.errors.items()}
    return positions, outputs, errors


@pytest.mark.parametrize(
    ("devices", "batch_size", "threads"), [(1, 1, 1), (1, 21, 4), (4, 4, 3), (8, 16, 2), (8, 64, 8)]
)
def test_every_image_once_in_order_on_any_batch_and_devices(images, devices, batch_size, threads):
    predictions = _predictions(images, devices=devices, batch_size=batch_size, num_threads=threads)
    assert predictions.row_shapes == {"mean": (3,), "level": ()}
    positions, outputs, errors = _together(predictions)
    assert positions.dtype == np.int64
    assert positions.tolist() == list(range(COUNT))
    assert list(errors) == [3, 20]
    assert all(error.startswith("truncated: libjpeg") for error in errors.values())
    good = [i for i in range(COUNT) if i not in errors]
    np.testing.assert_allclose(outputs["mean"][good], np.tile(20 * np.array([good]).T, 3), atol=2.1)
    np.testing.assert_allclose(outputs["level"][good], 10 * np.array(good), atol=1.1)
    assert np.isnan(outputs["mean"][[3, 20]]).all()
    assert outputs["level"][[3, 20]].tolist() == [0, 0]


@pytest.mark.slow
def test_worker_processes_read_the_same(images, tmp_path):
    built = open_images(record_files.write_set(tmp_path / "grey", (6, 5)), split="train")
    for source in images, built:
        threads, workers = (
            _together(_predictions(source, positions=range(len(source))[::-1], num_workers=count))
            for count in (0, 2)
        )
        np.testing.assert_equal(workers, threads)
        assert list(workers[2]) == ([20, 3] if source is images else [])
        assert len(workers[0]) == len(source) and source.names[3]


def test_a_persons_folder(tmp_path):
    user_folder.write_folder(tmp_path)
    view = EvaluationView(16, "whole", exif_orientation=True)
    positions, outputs, errors = _together(_predictions(open_images(tmp_path), view=view))
    assert positions.tolist() == list(range(len(user_folder.NAMES)))
    assert {user_folder.NAMES[i] for i in errors} == set(user_folder.ERRORS)
    for i, data in enumerate(user_folder.contents()):
        if i in errors:
            assert errors[i].startswith(user_folder.ERRORS[user_folder.NAMES[i]])
        else:
            expected = 2 * decode(data, exif_orientation=True).mean((0, 1))
            np.testing.assert_allclose(outputs["mean"][i], expected, atol=1)


def test_a_file_that_is_gone_is_its_own_error(folder, caplog):
    source = ImageFiles(folder, ["00.jpg", "gone.jpg", "02.jpg"])
    positions, outputs, errors = _together(_predictions(source))
    assert positions.tolist() == [0, 1, 2]
    assert errors == {1: "missing: there is no such file"}
    np.testing.assert_allclose(outputs["level"], [0, 0, 20], atol=1)
    assert caplog.messages == ["gone.jpg: missing: there is no such file"]
    list(_predictions(ImageFiles(folder, [f"gone{i}.jpg" for i in range(40)])))
    assert len(caplog.messages) == 1 + 20, "and not one more for every file of a wrong list"


def test_other_orders_and_rows_without_an_image(images):
    wanted = np.array([7, NO_IMAGE, 0, 3, NO_IMAGE, NO_IMAGE, NO_IMAGE, NO_IMAGE, 19, 7])
    predictions = _predictions(images, batch_size=4, positions=wanted)
    batches = list(predictions)
    assert [rows.positions.tolist() for rows in batches] == [[7, 0, 3], [], [19, 7]]
    assert [list(rows.errors) for rows in batches] == [[3], [], []]
    _, outputs, _ = _together(_predictions(images, batch_size=4, positions=wanted))
    np.testing.assert_allclose(outputs["level"], [70, 0, 0, 190, 70], atol=1)
    assert predictions.speed.images == 5


def test_a_pass_goes_on_where_another_stopped(images):
    positions, outputs, errors = _together(_predictions(images, start=17))
    assert positions.tolist() == [17, 18, 19, 20]
    assert list(errors) == [20]
    np.testing.assert_allclose(outputs["level"][:3], [170, 180, 190], atol=1)
    later = _together(_predictions(images, positions=np.array([4, 5, 6]), start=2))
    assert later[0].tolist() == [6]
    assert list(_predictions(images, start=COUNT)) == []


def test_every_process_has_consecutive_rows_of_every_batch(images, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    for process in range(3):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        predictions = _predictions(images, devices=1, batch_size=6, start=1)
        rows = [predictions._own_rows().position(row) for row in range(8)]
        first = 1 + 2 * process  # of the first batch
        expected = [first, first + 1, first + 6, first + 7, first + 12, first + 13]
        assert rows[:6] == expected
        assert rows[6:] == [[19, 20], [NO_IMAGE] * 2, [NO_IMAGE] * 2][process]


def test_the_next_batch_is_under_way_when_one_is_given_back(images):
    predictions = _predictions(images, devices=1, batch_size=2)
    step, calls = predictions._step, []

    def counting(*arguments):
        calls.append(len(calls))
        return step(*arguments)

    predictions._step = counting
    rows = iter(predictions)
    assert next(rows).positions.tolist() == [0, 1]
    assert len(calls) == 2
    assert next(rows).positions.tolist() == [2, 3]
    assert len(calls) == 3


def test_not_all_images_wait_in_memory(folder, images):
    class Counting(ImageFiles):
        reads = 0

        def read(self, index):
            Counting.reads += 1
            return super().read(index)

    source = Counting(folder, ["00.jpg"] * 2_000)
    rows = iter(_predictions(source, devices=1, batch_size=64, num_threads=3))
    next(rows)
    time.sleep(0.5)  # time to read all that may be read
    # One batch came back, one runs, two lie on the device, the next one and 3 * 16 are decoded.
    assert 4 * 64 < Counting.reads <= 5 * 64 + 3 * 16 + 16


def test_threads_share_a_batch(folder, images):
    """Also where it is the only one."""

    class Meeting(ImageFiles):
        barrier = threading.Barrier(2)

        def read(self, index):
            Meeting.barrier.wait(30)
            return super().read(index)

    source = Meeting(folder, ["00.jpg"] * 32)
    assert len(list(_predictions(source, devices=1, batch_size=32))) == 1


def test_too_many_errors_end_it(images):
    assert len(list(_predictions(images, max_errors=2))) == 3
    with pytest.raises(
        TooManyBadImagesError, match=r"2 images .*limit 1.*: 20.jpg: truncated: lib"
    ):
        list(_predictions(images, max_errors=1))
    with pytest.raises(TooManyBadImagesError, match="limit 0"):
        list(_predictions(images, max_errors=0))


def test_an_error_of_the_program_is_no_error_of_an_image(images):
    class Broken(EvaluationView):
        def __call__(self, data):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(_predictions(images, view=Broken(8, "whole")))


def test_what_held_it_up_is_told(folder, images):
    """A slow reader, a slow network, a slow taker: 10 batches, 20 ms each."""

    class Slow(ImageFiles):
        def read(self, index):
            time.sleep(0.02)
            return super().read(index)

    def run(source, *, network=0.0, taking=0.0):
        predictions = _predictions(
            source, devices=1, batch_size=1, positions=range(10), num_threads=1
        )
        step = predictions._step
        predictions._step = lambda *arguments: (time.sleep(network), step(*arguments))[1]
        begin = time.perf_counter()
        for number, _ in enumerate(predictions):
            time.sleep(taking if number < 9 else 0.2 if taking else 0)
        speed = predictions.speed
        assert 0 <= time.perf_counter() - begin - speed.seconds < 0.1
        assert speed.images == 10
        return speed

    slow_reader = run(Slow(folder, list(images.names)))
    assert slow_reader.limit == "reading"
    assert slow_reader.reading >= 0.15
    slow_network = run(images, network=0.02)
    assert slow_network.limit == "network"
    assert slow_network.network >= 0.2
    slow_taker = run(images, taking=0.02)
    assert slow_taker.limit == "results"
    assert slow_taker.seconds >= 9 * 0.02 + 0.2


@pytest.mark.parametrize(
    ("wanted", "images", "devices", "expected"),
    [(256, 5, 1, 5), (256, 5, 4, 8), (256, 1_000, 4, 256), (8, 8, 8, 8), (256, 0, 4, 4)],
)
def test_few_images_make_a_small_batch(wanted, images, devices, expected):
    mesh = sharding.make_mesh(jax.devices()[:devices])
    assert batch_predict.fitting_batch(wanted, images=images, mesh=mesh) == expected


def test_a_batch_that_devices_do_not_divide_is_refused(images):
    with pytest.raises(ValueError, match="batch_size=6 is not divisible by 4 devices"):
        _predictions(images, batch_size=6)
    with pytest.raises(ValueError, match="batch_size=6 is not divisible by 4 devices"):
        mesh = sharding.make_mesh(jax.devices()[:4])
        batch_predict.fitting_batch(6, images=1, mesh=mesh)
