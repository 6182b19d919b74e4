# SPDX-License-Identifier: BSD-3-Clause
import dataclasses
import re
import shutil
import signal
import time

import cv2
import jax
import numpy as np
import pytest

from mlimages_jax.data.dataset import DataSet
from mlimages_jax.data.images import transforms
from mlimages_jax.data.images.decode import decode
from mlimages_jax.data.records import parse_record
from mlimages_jax.distributed import sharding
from mlimages_jax.features.export import FeatureFilesError
from mlimages_jax.features.export.components import Components
from mlimages_jax.features.export.export_task import export
from mlimages_jax.features.export.feature_files import open_features
from mlimages_jax.features.export.feature_formats import FORMATS, Layout
from mlimages_jax.features.export.feature_writer import FeatureWriter
from mlimages_jax.features.export.parts import order_of_parts
from mlimages_jax.inference.batch_predict import NO_IMAGE
from mlimages_jax.inference.image_source import ImageFiles, ImageSourceError
from mlimages_jax.models.resnet import ResNet
from mlimages_jax.settings import build
from tests.support import (
    emulated_bucket,
    image_files,
    s3_storage,
    small_model,
    task_process,
    user_folder,
)
from tests.support.exporting import MODEL, OUTPUTS, config_of, files_of, settings_of
from tfds_builders import shapes


@pytest.fixture
def one_device(monkeypatch):
    mesh = sharding.make_mesh(jax.devices()[:1])
    monkeypatch.setattr(sharding, "make_mesh", lambda: mesh)


def _arrays(workdir, outputs=OUTPUTS):
    return {name: np.asarray(open_features(workdir, output=name).array) for name in outputs}


def _stage(tree, images, stage):
    """Pooled output of a stage, from a network that ends there.

    Its last BatchNorm only adds 1,000, so that its ReLU lets everything pass.
    """
    sizes, widths = MODEL.stage_sizes[: stage + 1], MODEL.stage_widths[: stage + 1]
    model = ResNet(5, stage_sizes=sizes, stage_widths=widths, stem_width=8, stem_kernel=3)
    width = MODEL.stage_widths[stage]
    ones, zeros = np.ones(width, np.float32), np.zeros(width, np.float32)
    params = {**tree["params"], "final_norm": {"scale": ones, "bias": zeros + 1_000}}
    params["head"] = {"kernel": np.zeros((width, 5)), "bias": np.zeros(5)}
    stats = {**tree["batch_stats"], "final_norm": {"mean": zeros, "var": ones - 1e-5}}
    return jax.jit(model.apply)({"params": params, "batch_stats": stats}, images)[1] - 1_000


def test_a_persons_folder_equals_a_computation_by_hand(folder, checkpoint, tree, tmp_path):
    manifest = export(config_of(checkpoint, folder), tmp_path)
    features = open_features(tmp_path)
    names = sorted([*user_folder.NAMES, *(f"noise/{i:02d}.jpg" for i in range(30))])
    assert features.names == names
    assert {features.names[i] for i in features.errors} == set(user_folder.ERRORS)
    for i, error in features.errors.items():
        assert error.startswith(user_folder.ERRORS[features.names[i]])
    assert manifest["images"] == 38
    assert manifest["errors"] == 3
    saved = manifest["checkpoint"]
    assert saved["folder"] == str(checkpoint / "checkpoints" / "7") and saved["averaged"]
    assert re.fullmatch("[0-9a-f]{32}", saved["weights"])  # what these features are of
    assert manifest["model"]["stage_sizes"] == [2, 1]
    assert manifest["view"] == {"protocol": "short_side", "size": 32, "exif_orientation": True}
    assert set(manifest["speed"]) == {
        "images_per_second", "waiting_for_images", "waiting_for_network", "limit",
    }  # fmt: skip

    good = np.flatnonzero(features.valid)
    pixels = [decode((folder / names[i]).read_bytes(), exif_orientation=True) for i in good]
    cuts = np.stack([transforms.short_side_view(p, 32) for p in pixels])
    images = (cuts / 255.0 * 2 - 1).astype(np.float32)
    logits, pooled = jax.jit(MODEL.apply)(tree, images)
    expected = {"features": pooled, "logits": logits}
    expected |= {f"stage{i}": _stage(tree, images, i) for i in range(2)}
    for name, rows in _arrays(tmp_path).items():
        assert rows.shape == (38, {"logits": 5, "stage0": 16}.get(name, 32))
        tolerance = 5e-4 if name.startswith("stage") else 1e-5  # 1,000 in float32 is exact to 6e-5
        np.testing.assert_allclose(rows[good], expected[name], atol=tolerance, err_msg=name)
        assert np.isnan(rows[~features.valid]).all()
        assert np.ptp(rows[good], axis=0).max() > 0.1, "the images differ"


def test_the_switch_for_exif_and_built_sets(folder, checkpoint, tmp_path):
    """The image that lies on its side, as a file and as a record of a set."""
    turned = folder / "upright.jpg"
    for exif in (True, False):
        export(config_of(checkpoint, turned, exif_orientation=exif), tmp_path / str(exif))
        pixels = decode(turned.read_bytes(), exif_orientation=exif)
        upright = tmp_path / f"{exif}.png"
        cv2.imwrite(str(upright), pixels[..., ::-1])
        export(config_of(checkpoint, upright), tmp_path / f"{exif}_png")
    arrays = {name: _arrays(tmp_path / name)["features"] for name in
              ("True", "False", "True_png", "False_png")}  # fmt: skip
    np.testing.assert_array_equal(arrays["True"], arrays["True_png"])
    np.testing.assert_array_equal(arrays["False"], arrays["False_png"])
    assert np.abs(arrays["True"] - arrays["False"]).max() > 0.01


def test_a_built_set_keeps_its_names_and_labels(checkpoint, tree, tmp_path):
    built = shapes.build(tmp_path / "data", num_train=2, num_val=9, size=40)
    manifest = export(config_of(checkpoint, built, split="val"), tmp_path / "out")
    assert manifest["view"]["exif_orientation"] is False
    assert manifest["input"] == {"path": str(built), "split": "val", "images_root": ""}
    features = open_features(tmp_path / "out")
    records = [parse_record(data) for data in DataSet.open(built).records("val")]
    assert features.names == [record.name for record in records]
    for text, record in zip(features.labels, records, strict=True):
        labels = [label.split(":") for label in text.split("\t")]
        assert [int(class_) for class_, _ in labels] == record.labels.tolist()
        np.testing.assert_array_equal(np.float32([c for _, c in labels]), record.confidences)
    cuts = np.stack([transforms.short_side_view(decode(r.jpeg), 32) for r in records])
    _, pooled = jax.jit(MODEL.apply)(tree, (cuts / 255.0 * 2 - 1).astype(np.float32))
    np.testing.assert_allclose(features.array[:], pooled, atol=1e-5)


@pytest.mark.slow
def test_averaged_weights_where_there_are_some(folder, tree, tmp_path):
    averages = jax.tree.map(lambda leaf: 1.1 * leaf, tree)
    small_model.save(tmp_path, {}, tree=tree, ema=averages)
    image = folder / "noise" / "00.jpg"
    pixels = transforms.short_side_view(decode(image.read_bytes()), 32) / np.float32(127.5) - 1
    for ema, weights in ((True, averages), (False, tree)):
        workdir = tmp_path / str(ema)
        manifest = export(config_of(tmp_path, image, ema=ema), workdir)
        assert manifest["checkpoint"]["averaged"] is ema
        expected = jax.jit(MODEL.apply)(weights, pixels[None])[0]
        np.testing.assert_allclose(_arrays(workdir)["logits"], expected, atol=1e-5)


def test_labels_of_a_list_are_kept(folder, checkpoint, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("noise/01.jpg\t3:1\nnoise/00.jpg\ngone.jpg 7\n")
    config = config_of(checkpoint, path, images_root=str(folder), format="npy")
    export(config, tmp_path / "out")
    features = open_features(tmp_path / "out")
    assert features.names == ["noise/01.jpg", "noise/00.jpg", "gone.jpg"]
    assert features.labels == ["3:1", "", "7"]
    assert features.errors == {2: "missing: there is no such file"}


@pytest.mark.slow
def test_ten_crops_are_averaged(folder, checkpoint, tree, tmp_path):
    image = folder / "noise" / "00.jpg"
    export(config_of(checkpoint, image, **{"view.name": "ten_crop"}), tmp_path)
    crops = transforms.ten_crop_views(decode(image.read_bytes()), 32)
    images = (crops / 255 * 2 - 1).astype(np.float32)
    expected = dict(zip(("logits", "features"), jax.jit(MODEL.apply)(tree, images), strict=True))
    expected["stage1"] = _stage(tree, images, 1)
    for name, rows in expected.items():
        (row,) = _arrays(tmp_path, (name,))[name]
        np.testing.assert_allclose(row, rows.mean(0), atol=2e-4, err_msg=name)
        assert np.abs(row - rows[0]).max() > 2e-3, "crops differ"


def _ten_crops(image):
    """As extract_feature.py: short side 256, corners and centre, the same of the mirror image."""
    height, width = image.shape[:2]
    short = min(height, width)
    size = int(width / short * 256), int(height / short * 256)
    scaled = cv2.resize(image, size)
    crops = []
    for side in (scaled, scaled[:, ::-1]):
        bottom, right = side.shape[0] - 224, side.shape[1] - 224
        corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
        crops += [side[top : top + 224, left : left + 224] for top, left in corners]
    return np.stack(crops)


@pytest.mark.slow
def test_a_photograph_equals_the_originals_preprocessing(
    golden_dir, tencent_dir, checkpoint, tree, tmp_path, one_device
):
    """The network on what extract_feature.py makes of the photograph."""
    image = tencent_dir / "images" / "im_2.jpg"
    golden = np.load(golden_dir / "preprocessing.npz")
    crops = _ten_crops(cv2.imread(str(image))[..., ::-1])
    picked = np.linspace(0, 223, 32).round().astype(int)
    ours = crops[:, picked][:, :, picked]
    np.testing.assert_array_equal(ours, golden["cv|im_2|10crop_sub32_u8"])
    levels = np.concatenate([golden["cv|im_2|center_u8"][None], crops])
    logits, features = jax.jit(MODEL.apply)(tree, ((levels / 255 - 0.5) * 2).astype(np.float32))

    for view, rows in (("short_side", slice(0, 1)), ("ten_crop", slice(1, 11))):
        values = {"outputs": ("features", "logits"), "view.size": 224, "view.name": view}
        export(config_of(checkpoint, image, **values), tmp_path / view)
        for name, expected in (("features", features[rows]), ("logits", logits[rows])):
            (row,) = _arrays(tmp_path / view, (name,))[name]
            np.testing.assert_allclose(row, expected.mean(0), atol=2e-5, err_msg=name)
            assert np.abs(row).max() > 0.1


@pytest.mark.slow
def test_batches_of_1_and_64_are_equal(folder, checkpoint, tmp_path, one_device):
    for size in (1, 64):
        export(config_of(checkpoint, folder, batch_size=size), tmp_path / str(size))
    alone, together = (_arrays(tmp_path / str(size)) for size in (1, 64))
    for name, rows in alone.items():
        np.testing.assert_allclose(rows, together[name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize("stored_dtype", ["float32", "float16"])
def test_formats_hold_the_same_numbers(folder, checkpoint, tmp_path, stored_dtype):
    for name in FORMATS:
        config = config_of(checkpoint, folder, format=name, stored_dtype=stored_dtype)
        export(config, tmp_path / name)
    first = _arrays(tmp_path / "npy")
    assert first["features"].dtype == stored_dtype
    for name in FORMATS:
        for output, rows in _arrays(tmp_path / name).items():
            np.testing.assert_array_equal(rows, first[output])


@pytest.mark.parametrize("file_format", FORMATS)
def test_an_export_goes_on_where_it_stopped(folder, checkpoint, tmp_path, monkeypatch, file_format):
    config = config_of(checkpoint, folder, format=file_format)
    export(config, tmp_path / "whole")
    reads, read, write = [], ImageFiles.read, FeatureWriter.write

    def stop(self, part):
        if part.number == 3:
            self.wait()
            raise KeyboardInterrupt
        write(self, part)

    monkeypatch.setattr(FeatureWriter, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        export(config, tmp_path / "stopped")
    with pytest.raises(FeatureFilesError, match="is not complete"):
        open_features(tmp_path / "stopped")
    monkeypatch.undo()
    monkeypatch.setattr(ImageFiles, "read", lambda self, i: reads.append(i) or read(self, i))
    export(config, tmp_path / "stopped")
    assert sorted(reads) == list(range(24, 38))
    assert files_of(tmp_path / "stopped") == files_of(tmp_path / "whole")

    reads.clear()
    manifest = export(config, tmp_path / "stopped")
    assert manifest["complete"]
    assert reads == [], "a complete export is left as it is"


def test_all_parts_stored_but_not_brought_together(folder, checkpoint, tmp_path, monkeypatch):
    config = config_of(checkpoint, folder)
    export(config, tmp_path / "whole")

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(FeatureWriter, "finish", stop)
    with pytest.raises(KeyboardInterrupt):
        export(config, tmp_path / "stopped")
    monkeypatch.undo()
    export(config, tmp_path / "stopped")
    assert files_of(tmp_path / "stopped") == files_of(tmp_path / "whole")


@pytest.mark.slow
def test_faster_arithmetic_is_close(folder, checkpoint, tmp_path):
    for dtype in ("float32", "bfloat16"):
        manifest = export(config_of(checkpoint, folder, dtype=dtype), tmp_path / dtype)
        assert manifest["model"]["dtype"] == dtype
    exact, fast = (_arrays(tmp_path / dtype) for dtype in ("float32", "bfloat16"))
    for name, rows in exact.items():
        assert fast[name].dtype == np.float32
        difference = np.nanmax(np.abs(fast[name] - rows))
        assert 1e-5 < difference < 0.05 * np.nanmax(np.abs(rows)), name


def test_other_batches_and_parts_give_the_same_rows(folder, checkpoint, tmp_path):
    export(config_of(checkpoint, folder), tmp_path / "first")
    values = {"batch_size": 16, "rows_per_part": 11, "num_threads": 5}
    export(config_of(checkpoint, folder, **values), tmp_path / "second")
    for name, rows in _arrays(tmp_path / "first").items():
        np.testing.assert_allclose(_arrays(tmp_path / "second")[name], rows, atol=1e-5)


def _run(workdir, values, *, count):
    with task_process.running("export_features", workdir, values, count=count) as running:
        errors = [process.communicate(timeout=200)[1] for process in running]
        assert [process.returncode for process in running] == [0] * count, errors


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["parquet", "npy"])
def test_two_processes_equal_one_byte_by_byte(folder, checkpoint, tmp_path, file_format):
    """Eight devices here, and four in each of two processes; the second goes on with a part."""
    values = settings_of(checkpoint, folder, format=file_format)
    export(config_of(checkpoint, folder, format=file_format), tmp_path / "one")
    _run(tmp_path / "two", values, count=2)
    for name, rows in _arrays(tmp_path / "one").items():
        np.testing.assert_allclose(_arrays(tmp_path / "two")[name], rows, atol=1e-5)
    ones, twos = files_of(tmp_path / "one"), files_of(tmp_path / "two")
    assert ones == twos


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("count", [1, 2])
def test_killed_at_any_moment_the_export_ends_with_the_same_bytes(
    folder, checkpoint, tmp_path, count
):
    """SIGKILL after one part, two parts, ...; then it runs to its end."""
    names = sorted(folder.glob("noise/*.jpg")) * 40
    path = tmp_path / "list.txt"
    path.write_text("".join(f"{name}\n" for name in names))
    values = settings_of(checkpoint, path, rows_per_part=64, format="npy")
    _run(tmp_path / "whole", values, count=count)
    kills = 0
    for attempt in range(1, 4):
        killed = tmp_path / "killed"
        with task_process.running("export_features", killed, values, count=count) as running:
            unfinished = killed / "unfinished"
            while all(process.poll() is None for process in running):
                if unfinished.exists() and len(list(unfinished.glob("*.jsonl"))) > 3 * attempt:
                    break
                time.sleep(0.001)
            for process in running:
                process.send_signal(signal.SIGKILL)
            kills += all(process.wait() == -signal.SIGKILL for process in running)
    assert kills >= 2, "the export was over before it could be killed"
    _run(tmp_path / "killed", values, count=count)
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


def _of(folder):
    return np.asarray(open_features(folder).array)


def test_components_are_those_of_the_features(folder, checkpoint, tmp_path):
    """Found on all 38 images here; a second export takes the first of them."""
    export(config_of(checkpoint, folder), tmp_path / "all")
    features = _of(tmp_path / "all")
    valid = open_features(tmp_path / "all").valid
    centred = features[valid] - features[valid].mean(0)
    axes = np.linalg.svd(centred, full_matrices=False)[2]

    short = config_of(checkpoint, folder, components=6)
    manifest = export(short, tmp_path / "short")
    projected = _of(tmp_path / "short")
    assert projected.shape == (38, 6) and manifest["outputs"]["features"] == 6
    assert np.isnan(projected[~valid]).all()
    np.testing.assert_allclose(np.abs(projected[valid]), np.abs(centred @ axes[:6].T), atol=1e-4)
    for name in ("logits", "stage0"):
        np.testing.assert_array_equal(
            open_features(tmp_path / "short", output=name).array,
            open_features(tmp_path / "all", output=name).array,
        )
    kept = Components.load(tmp_path / "short")
    np.testing.assert_allclose(kept.project(features)[valid], projected[valid], atol=1e-5)
    assert manifest["components_digest"] == kept.digest
    assert export(short, tmp_path / "short") == manifest, "it is complete"

    few = config_of(
        checkpoint, folder / "noise", components=2, components_of=str(tmp_path / "short")
    )
    export(few, tmp_path / "few")
    rows = [i for i, n in enumerate(open_features(tmp_path / "all").names) if "noise/" in n]
    np.testing.assert_allclose(_of(tmp_path / "few"), projected[rows, :2], atol=1e-4)


def test_components_are_found_on_a_sample(folder, checkpoint, tmp_path):
    export(config_of(checkpoint, folder, components=3, components_images=12), tmp_path)
    assert 9 <= Components.load(tmp_path).images <= 12  # three of the folder cannot be read


def test_an_export_of_components_goes_on_with_the_same(folder, checkpoint, tmp_path, monkeypatch):
    config = config_of(checkpoint, folder, components=4, format="npy")
    export(config, tmp_path / "whole")
    write = FeatureWriter.write

    def fail(writer, part):
        if part.number == 3:
            raise KeyboardInterrupt
        write(writer, part)

    for name in ("stopped", "robbed"):
        with monkeypatch.context() as patched:
            patched.setattr(FeatureWriter, "write", fail)
            with pytest.raises(KeyboardInterrupt):
                export(config, tmp_path / name)
    # What another sample would give: rows of two kinds must not come into one file.
    moved = Components.load(tmp_path / "stopped")
    dataclasses.replace(moved, mean=moved.mean + 1).save(tmp_path / "stopped")
    export(config, tmp_path / "stopped")
    shift = _of(tmp_path / "whole") - _of(tmp_path / "stopped")
    assert np.nanmax(np.abs(shift[:8])) == 0 and np.nanmin(np.abs(shift[-8:]).max(1)) > 0.01
    (tmp_path / "robbed" / "components.npz").unlink()
    with pytest.raises(FeatureFilesError, match=r"components.npz is missing, with which"):
        export(config, tmp_path / "robbed")


@pytest.mark.slow
def test_settings_of_components_that_cannot_be(folder, checkpoint, tree, tmp_path):
    def refused(match, where="x", **changes):
        with pytest.raises((build.ConfigError, FeatureFilesError), match=match):
            export(config_of(checkpoint, folder, **changes), tmp_path / where)

    refused("components=33: the network has 32 features", components=33)
    refused("which is not among", components=3, outputs=("logits",))
    refused("is used with components=K", components_of=str(folder))
    refused("components=32 cannot be found with", "y", components=32, components_images=20)
    export(config_of(checkpoint, folder), tmp_path / "plain")
    refused("contains no components.npz", components=3, components_of=str(tmp_path / "plain"))
    export(config_of(checkpoint, folder, components=3), tmp_path / "three")
    refused("has 3 of 32 features", components=4, components_of=str(tmp_path / "three"))
    other = small_model.save(
        tmp_path / "run", {}, tree=jax.tree.map(lambda leaf: leaf * np.float32(1.5), tree)
    )
    with pytest.raises(build.ConfigError, match="has features of another network"):
        export(
            config_of(other, folder, components=3, components_of=str(tmp_path / "three")),
            tmp_path / "other",
        )


@pytest.mark.slow
def test_two_processes_find_the_components_of_one(folder, checkpoint, tmp_path):
    values = settings_of(checkpoint, folder, components=5)
    export(config_of(checkpoint, folder, components=5), tmp_path / "one")
    _run(tmp_path / "two", values, count=2)
    one, two = (Components.load(tmp_path / name) for name in ("one", "two"))
    assert one.images == two.images == 35
    np.testing.assert_allclose(one.axes, two.axes, atol=1e-5)
    np.testing.assert_allclose(_of(tmp_path / "one"), _of(tmp_path / "two"), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("store", emulated_bucket.STORES)
def test_an_export_into_a_bucket_has_the_bytes_of_one_on_a_disk(
    folder, checkpoint, tmp_path, monkeypatch, store
):
    config = config_of(checkpoint, folder, components=4)
    export(config, tmp_path / "disk")
    with emulated_bucket.serve(store, tmp_path / "bucket", monkeypatch):
        for _ in range(2):  # the second finds it complete
            assert export(config, f"{store}://bucket/w")["complete"]
        np.testing.assert_array_equal(
            open_features(f"{store}://bucket/w").array, open_features(tmp_path / "disk").array
        )
    for path in (tmp_path / "bucket").rglob("*"):
        if path.name in ("run.lock", s3_storage.MARKER):
            path.unlink()
    assert files_of(tmp_path / "bucket/w") == files_of(tmp_path / "disk")


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("batch_size", [4, 8, 12])
@pytest.mark.parametrize("numbers", [[0, 2, 3, 4], [0, 2, 4], [4]], ids=str)
def test_parts_are_dealt_to_processes(monkeypatch, processes, batch_size, numbers):
    """Every image once, by one process a part; a part begins with a batch."""
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    layout = Layout(37, 8, {}, "float32", False)
    numbers = np.array(numbers)  # of 5; the last has five images
    order = order_of_parts(layout, numbers, batch_size=batch_size)
    batches = order.reshape(-1, processes, batch_size // processes)
    wanted = [p for number in numbers for p in layout.positions(number)]
    assert sorted(order[order != NO_IMAGE]) == wanted
    assert (order.reshape(-1, batch_size) != NO_IMAGE).any(1).all(), "no batch is empty"
    for process in range(processes):
        own = batches[:, process]
        positions = own[own != NO_IMAGE]
        expected = [p for n in numbers[process::processes] for p in layout.positions(n)]
        assert positions.tolist() == expected
        for batch in own:
            filled = batch[batch != NO_IMAGE]
            assert len(set(filled // 8)) <= 1, "a batch is of one part"
            assert (batch[: len(filled)] == filled).all()
    assert order_of_parts(layout, np.array([], int), batch_size=batch_size).size == 0


def test_numbers_that_cannot_be_stored_are_refused(folder, tree, tmp_path):
    params = tree["params"]
    large = {**params, "head": {**params["head"], "bias": params["head"]["bias"] + 1e5}}
    broken = {**params, "head": {**params["head"], "bias": params["head"]["bias"] * np.nan}}
    for name, changed in (("large", large), ("broken", broken)):
        small_model.save(tmp_path / name, {}, tree={**tree, "params": changed})
    changes = {"outputs": ("logits",), "stored_dtype": "float16"}
    message = "logits of images 0 to 7 has .* not finite as float16: try .*stored_dtype=float32"
    with pytest.raises(build.ConfigError, match=message):
        export(config_of(tmp_path / "large", folder, **changes), tmp_path / "out")
    message = "not finite as float32: the checkpoint is damaged"
    with pytest.raises(build.ConfigError, match=message):
        export(config_of(tmp_path / "broken", folder, outputs=("logits",)), tmp_path / "broken_out")
    export(config_of(tmp_path / "large", folder, outputs=("logits",)), tmp_path / "float32")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"outputs": ("stage2",)}, build.ConfigError, "name some of features, logits, stage0"),
        ({"outputs": ()}, build.ConfigError, r"outputs=\(\): give 1 or more"),
        ({"dtype": "int8"}, build.ConfigError, "dtype='int8' is none of"),
        ({"stored_dtype": "int8"}, build.ConfigError, "stored_dtype='int8' is none of"),
        ({"view.name": "best"}, build.ConfigError, "view.name='best' is none of"),
        (
            {"view.size": 0},
            build.ConfigError,
            "does not say at which size it was trained: give",
        ),
        ({"rows_per_part": 0}, build.ConfigError, "rows_per_part=0: give a whole number, 1"),
        ({"batch_size": 9}, build.ConfigError, "config.batch_size=9 is not divisible by 8"),
        ({"format": "csv"}, build.ConfigError, "format='csv' is none of parquet"),
        ({"split": "val"}, ImageSourceError, "is not a built set"),
        ({"input": "nowhere"}, FileNotFoundError, "nowhere does not exist: give a folder"),
        ({"checkpoint": "nowhere"}, FileNotFoundError, "nowhere contains no checkpoint"),
        ({"max_errors": 1}, RuntimeError, "limit 1"),
    ],
)
def test_what_cannot_be_exported_is_named(folder, checkpoint, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        export(config_of(checkpoint, folder, **changes), tmp_path)


def test_a_checkpoint_of_something_else_is_named(folder, tmp_path):
    tree = {"params": {"layer": {"kernel": np.ones(3)}}, "batch_stats": {"mean": np.ones(3)}}
    small_model.save(tmp_path, {}, tree=tree)
    with pytest.raises(build.ConfigError, match=r"checkpoints/7: these are not the parameters"):
        export(config_of(tmp_path, folder), tmp_path / "out")


def test_other_images_or_weights_need_another_workdir(folder, checkpoint, tree, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(folder / "noise", images)
    export(config_of(checkpoint, images), tmp_path / "out")
    shutil.copytree(images, tmp_path / "moved")
    export(config_of(checkpoint, tmp_path / "moved"), tmp_path / "out")  # the same images
    (images / "zz.jpg").write_bytes(image_files.jpeg(image_files.noise()))
    with pytest.raises(FeatureFilesError, match="images: 30 in the folder, 31 now"):
        export(config_of(checkpoint, images), tmp_path / "out")
    (images / "00.jpg").unlink()
    with pytest.raises(FeatureFilesError, match="input_digest: "):
        export(config_of(checkpoint, images), tmp_path / "out")
    small_model.save(checkpoint, {}, tree=tree, step=9)
    with pytest.raises(FeatureFilesError, match=r"checkpoint: .*checkpoints/7.*checkpoints/9"):
        export(config_of(checkpoint, tmp_path / "moved"), tmp_path / "out")


@pytest.mark.slow
def test_what_came_to_the_same_path_is_never_told_as_what_was_there(folder, tree, tmp_path):
    """Weights of the same step, an image of the same name, labels of the same list."""
    images, run = shutil.copytree(folder / "noise", tmp_path / "p"), tmp_path / "run"
    named = tmp_path / "list.txt"
    named.write_text("".join(f"{path.name}\t3\n" for path in sorted(images.iterdir())))
    small_model.save(run, {}, tree=tree)

    def asked():
        return export(config_of(run, named, images_root=str(images)), tmp_path / "out")

    assert asked() == asked()
    before, text = (images / "00.jpg").read_bytes(), named.read_text()
    (images / "00.jpg").write_bytes((images / "01.jpg").read_bytes() + b"more")
    with pytest.raises(FeatureFilesError, match="input_digest: "):
        asked()
    (images / "00.jpg").write_bytes(before)
    named.write_text(text.replace("\t3", "\t4", 1))
    with pytest.raises(FeatureFilesError, match="labels_digest: "):
        asked()
    named.write_text(text)
    asked()
    shutil.rmtree(run)
    small_model.save(run, {}, tree=jax.tree.map(lambda leaf: leaf * 1.5, tree))
    with pytest.raises(FeatureFilesError, match=r"checkpoint: .*'weights': .*'weights': "):
        asked()
