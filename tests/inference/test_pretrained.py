# SPDX-License-Identifier: BSD-3-Clause
"""`load` and what its model says, on checkpoints of a tiny network."""

import dataclasses
import io
import re
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import mlimages_jax
from mlimages_jax.data.images import transforms
from mlimages_jax.data.images.decode import BadImage, decode
from mlimages_jax.inference import model as model_module
from mlimages_jax.inference import pretrained, tagging
from mlimages_jax.labels.hierarchy import Hierarchy
from mlimages_jax.settings import build, restart
from tests.support import image_files, small_model
from tests.support.small_run import load_config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return small_model.save(tmp_path_factory.mktemp("run"), small_model.imported("weighted"))


@pytest.fixture(scope="module")
def model(workdir):
    return mlimages_jax.load(workdir)


@pytest.fixture(scope="module")
def single_label(tmp_path_factory):
    folder = small_model.save(tmp_path_factory.mktemp("softmax"), small_model.imported("softmax"))
    return mlimages_jax.load(folder)


def _photographs(count, size=40):
    """JPEG files of noise, each another one."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, size, size + 8, 3), np.uint8)
    return [image_files.jpeg(image) for image in images]


def _images(count, size=32):
    return np.random.default_rng(1).uniform(-1, 1, (count, size, size, 3)).astype(np.float32)


def _by_hand(images):
    return jax.jit(small_model.SMALL.apply)(small_model.weights(), images)


@pytest.mark.parametrize("tail", ["", "checkpoints", "checkpoints/7"])
def test_a_workdir_a_folder_and_a_step(workdir, tail):
    model = pretrained.load(str(workdir / tail))
    jax.tree.map(np.testing.assert_array_equal, model.params, small_model.weights()["params"])
    assert type(model.params) is dict and type(model.params["head"]) is dict
    stats = small_model.weights()["batch_stats"]
    jax.tree.map(np.testing.assert_array_equal, model.batch_stats, stats)
    assert (model.loss, model.positive_weight, model.image_size) == ("weighted", 12.0, 32)
    assert model.network.num_classes == 5 and model.hierarchy.names[1] == "dog, domestic dog"
    assert (model.view.name, model.view.exif_orientation) == ("short_side", True)


def test_the_package_loads_models_when_it_is_asked_to():
    assert mlimages_jax.load is pretrained.load
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        mlimages_jax.lode  # noqa: B018


def test_logits_and_features_are_the_networks(model):
    images = _images(3)
    logits, features = _by_hand(images)
    for ours, expected in ((model.logits(images), logits), (model.features(images), features)):
        assert type(ours) is np.ndarray and ours.dtype == np.float32
        np.testing.assert_allclose(ours, expected, atol=1e-5)
    given = {"params": model.params, "batch_stats": model.batch_stats}
    applied = jax.jit(model.network.apply)(given, images)
    np.testing.assert_allclose(applied[0], logits, atol=1e-5)
    levels = np.random.default_rng(2).integers(0, 256, (2, 32, 32, 3), np.uint8)
    floats = levels.astype(np.float64) / 127.5 - 1
    np.testing.assert_allclose(model.logits(levels), model.logits(floats), atol=1e-5)
    np.testing.assert_allclose(model.logits(jnp.asarray(images)), logits, atol=1e-5)
    assert model.logits(_images(0)).shape == (0, 5) and model.features(_images(0)).shape == (0, 32)
    assert model.logits(_images(1, size=40)).shape == (1, 5)  # another size than the trained one


def test_an_image_alone_and_among_64(model):
    images = _images(64)
    for function in (model.logits, model.features):
        together = function(images)
        alone = np.concatenate([function(images[i : i + 1]) for i in range(64)])
        np.testing.assert_allclose(alone, together, atol=1e-5, rtol=0)
        assert np.ptp(together, axis=0).max() > 0.01  # the images do differ
    files = _photographs(64)
    together = model.tag(files, top_k=None)
    for file, tags in zip(files, together, strict=True):
        (alone,) = model.tag(file, top_k=None)
        scores = [{tag.index: tag.score for tag in found} for found in (alone, tags)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-5)


@pytest.mark.slow
def test_batches_of_few_sizes_are_compiled(workdir, monkeypatch):
    """Counted as traces: 1, 2, 4, 6 rows, for any number of images, and once for all models."""
    shapes = []

    def counted(weights, images, *, model, names):
        shapes.append(images.shape)
        return network_outputs(weights, images, model=model, names=names)

    network_outputs = model_module.network_outputs
    monkeypatch.setattr(model_module, "network_outputs", counted)
    model_module._predict.clear_cache()
    for _ in range(2):
        model = dataclasses.replace(pretrained.load(workdir), max_batch=6)
        whole = [model.logits(_images(count)) for count in range(1, 20)]
    assert [shape[0] for shape in shapes] == [1, 2, 4, 6]
    for rows in whole:
        np.testing.assert_allclose(rows, whole[-1][: len(rows)], atol=1e-5)
    model.features(_images(5))
    model.tag(_photographs(5))  # uint8, not float
    assert [shape[0] for shape in shapes[4:]] == [6]


@pytest.mark.parametrize(("dtype", "exact"), [("float32", True), ("bfloat16", False)])
def test_float32_takes_no_shortcut_on_accelerators(workdir, dtype, exact):
    model = pretrained.load(workdir, dtype=dtype)
    weights = {"params": model.params, "batch_stats": model.batch_stats}
    program = model_module._predict.lower(weights, _images(1), network=model.network).as_text()
    operations = [
        line for line in program.splitlines() if "convolution(" in line or "dot_general" in line
    ]
    assert len(operations) == 10
    assert all(("HIGHEST" in line) == exact for line in operations)
    assert ("bf16" in program) != exact
    np.testing.assert_allclose(model.logits(_images(2)), _by_hand(_images(2))[0], atol=0.3)


def test_weighted_scores_are_calibrated(model, tmp_path):
    files = _photographs(3)
    logits = model.logits(np.stack([model.crop(file) for file in files])).astype(np.float64)
    s = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(model.probabilities(files), s / (s + 12 * (1 - s)), atol=1e-6)
    for loss in ("sigmoid", "focal"):
        small_model.save(tmp_path / loss, small_model.imported(loss))
        other = pretrained.load(tmp_path / loss)
        assert other.positive_weight == 1.0
        np.testing.assert_allclose(other.probabilities(files), s, atol=1e-6)


def test_softmax_of_one_class_an_image(single_label):
    files = _photographs(3)
    logits = single_label.logits(np.stack([single_label.crop(file) for file in files]))
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(single_label.probabilities(files), expected, atol=1e-6)
    for row, tags in zip(expected, single_label.classify(files, top_k=2), strict=True):
        assert [tag.index for tag in tags] == np.argsort(-row)[:2].tolist()
        assert [tag.score for tag in tags] == pytest.approx(np.sort(row)[:-3:-1])
    assert single_label.classify(files[0]) == single_label.tag(files[0])


def test_tags_by_all_rules(model, tmp_path):
    file = _photographs(1)[0]
    scores = model.probabilities(file)
    hierarchy = model.hierarchy
    assert model.tag(file) == tagging.best_tags(scores, hierarchy, top_k=5)
    assert model.tag(file, 2) == model.tag([file], top_k=2) == [model.tag(file)[0][:2]]
    middle = float(np.sort(scores[0])[2])
    assert len(model.tag(file, top_k=None, threshold=middle)[0]) == 3
    (tmp_path / "t").write_text("n0\t1\nn4\t0\n")
    named = model.tag(file, thresholds=tmp_path / "t", threshold=1.0)
    assert [tag.id for tag in named[0]] == ["n4"]
    assert model.tag(file, thresholds={"n0": 1.0, 4: 0.0}, threshold=1.0) == named
    consistent = model.tag(file, consistent=True)
    lowered = tagging.consistent_scores(scores, hierarchy)
    assert (lowered < scores).any()
    assert consistent == tagging.best_tags(lowered, hierarchy)
    assert model.tag([]) == [] and model.probabilities([]).shape == (0, 5)


def test_images_in_every_form(model, tmp_path):
    data = image_files.noisy_png()
    pixels = image_files.noise()
    path = tmp_path / "a b.png"
    path.write_bytes(data)
    opened = Image.open(io.BytesIO(data))
    expected = transforms.short_side_view(pixels, 32)
    for image in (path, str(path), data, opened, Image.fromarray(pixels), pixels):
        np.testing.assert_array_equal(model.crop(image), expected)
    tags = model.tag(data)
    several = model.tag([path, str(path), data, opened, pixels])
    for found in (*several, *model.tag(opened), *model.tag(pixels), *model.tag(pixels[None])):
        assert [tag.index for tag in found] == [tag.index for tag in tags[0]]
    assert len(several) == 5 and len(model.tag(np.stack([pixels, pixels]))) == 2
    assert len(model.tag(image for image in [data, path])) == 2


def test_the_same_late_image_many_times(model):
    """An opened PIL image reads its pixels when they are asked for, here by several threads."""
    file = io.BytesIO(image_files.by_pillow("JPEG", quality=95))
    tags = model.tag([Image.open(file)] * 16)
    assert all(found == tags[0] for found in tags)


def test_images_are_turned_upright_unless_told_not_to(model, workdir, tmp_path):
    data = image_files.exif_jpeg(6)
    lying = decode(data)
    standing = np.rot90(lying, -1)
    expected = transforms.short_side_view(standing, 32)
    np.testing.assert_array_equal(model.crop(data), expected)
    image = Image.open(io.BytesIO(data))
    assert np.abs(model.crop(image).astype(int) - expected).mean() < 1
    as_stored = pretrained.load(workdir, exif_orientation=False)
    np.testing.assert_array_equal(as_stored.crop(data), transforms.short_side_view(lying, 32))
    difference = as_stored.crop(image).astype(int) - transforms.short_side_view(lying, 32)
    assert np.abs(difference).mean() < 1


def test_transparent_pixels_lie_on_white(model):
    data = image_files.translucent_png()
    given = model.crop(Image.open(io.BytesIO(data))).astype(int)
    assert np.abs(given - model.crop(data)).max() <= 1
    assert (given[:, 20:] == 255).all()


@pytest.mark.parametrize("position", [0, 2])
def test_a_bad_image_is_named(model, tmp_path, position):
    model = dataclasses.replace(model, max_batch=2)
    good = image_files.jpeg(image_files.quadrants())
    broken = image_files.truncated(image_files.jpeg(image_files.noise()))
    (tmp_path / "broken.jpg").write_bytes(broken)
    (tmp_path / "notes.txt").write_text("no image")
    cases = [
        (tmp_path / "broken.jpg", "broken.jpg: libjpeg: Premature end"),
        (str(tmp_path / "notes.txt"), "notes.txt: neither JPEG, PNG, GIF nor WebP"),
        (broken, f"image {position}: libjpeg: Premature end"),
        (Image.open(io.BytesIO(broken)), f"image {position}: Pillow: .*truncated"),
        (Image.open(tmp_path / "broken.jpg"), "broken.jpg: Pillow: .*truncated"),
        (np.zeros((3, 4, 3), int), rf"image {position}: an array int64 \[3, 4, 3\]: give a path"),
        (np.full((3, 4, 3), 7.0), rf"image {position}: images from 7 to 7: give floats in"),
        (np.zeros((0, 4, 3), np.uint8), rf"image {position}: an array uint8 \[0, 4, 3\]"),
        (np.zeros((3, 4, 4), np.uint8), rf"image {position}: an array uint8 \[3, 4, 4\]"),
        (17, f"image {position}: a int: give a path"),
        (Image.new("F", (40, 40)), f"image {position}: a PIL image of mode F with numbers"),
        (Image.new("I", (40, 40), -3), f"image {position}: a PIL image of mode I with numbers"),
        ("https://a.example/b.jpg", r"b.jpg' is a URL \(https:\), not a path: download it"),
        (Path("HTTP://a.example/b.jpg"), r"is a URL \(http:\), not a path: download it"),
        (io.StringIO("text"), f"image {position}: a file opened as text: open it with 'rb'"),
        (io.BytesIO(), f"image {position}: the file is at its end"),
        (np.zeros((1, 501, 3), np.uint8), f"image {position}: image of 1x501 pixels"),
    ]
    for image, message in cases:
        images = [good, good, good]
        images[position] = image
        with pytest.raises(BadImage, match=message):
            model.tag(images, on_error="raise")
        tags = model.tag(images)
        assert [bool(found) for found in tags] == [i != position for i in range(3)]
        assert re.search(message, tags[position].error) and not tags[1].error
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg"):
        model.tag([good, tmp_path / "nowhere.jpg"], on_error="raise")


def test_a_bad_image_alone_raises_and_one_of_several_is_a_row(model, tmp_path):
    model = dataclasses.replace(model, max_batch=4)
    good = _photographs(1)[0]
    files = [good] * 11
    files[2], files[9] = tmp_path / "nowhere.jpg", b"no image"
    for function in (model.logits, model.features, model.probabilities):
        rows = function(iter(files))
        assert np.flatnonzero(np.isnan(rows).any(1)).tolist() == [2, 9]
        assert np.isnan(rows[[2, 9]]).all() and rows.dtype == np.float32
        assert sorted(rows.errors) == [2, 9] and "nowhere.jpg" in rows.errors[2]
        assert rows.errors[9].startswith("image 9: ") and not rows[:3].errors
        np.testing.assert_allclose(rows[[0, 10]], function([good] * 2), atol=1e-6)
        assert np.isnan(function([b"no image"])).all()
        with pytest.raises(FileNotFoundError):  # the first
            function(files, on_error="raise")
        for alone, error in ((files[2], FileNotFoundError), (files[9], BadImage)):
            with pytest.raises(error):
                function(alone)
            assert np.isnan(function(alone, on_error="row")).all()
    tags = model.tag(files)
    assert tags[0] == tags[10] and len(tags) == 11 and tags[2] == tags[9] == []
    assert "nowhere.jpg" in tags[2].error and not tags[0].error
    with pytest.raises(BadImage):
        model.tag(b"no image")
    with pytest.raises(ValueError, match="on_error='ignore' is neither"):
        model.tag(files, on_error="ignore")


def test_all_functions_take_images_in_every_form(model, tmp_path):
    """All stand for the same image, hence the same numbers."""
    data, pixels = image_files.noisy_png(), image_files.noise()
    path = tmp_path / "a b.png"
    path.write_bytes(data)
    floats = pixels.astype(np.float32) / 127.5 - 1
    forms = [
        str(path), path, data, bytearray(data), memoryview(data), io.BytesIO(data),
        Image.open(path), pixels, jnp.asarray(pixels), floats, floats.astype(np.float64),
        jnp.asarray(floats), pixels[::1, ::1].copy(order="F"),
    ]  # fmt: skip
    for function in (model.logits, model.features, model.probabilities):
        expected = function(model.crop(path)[None]) if function != model.probabilities else None
        forms[5] = io.BytesIO(data)
        rows = function(tuple(forms))
        assert not rows.errors and len(rows) == len(forms)
        np.testing.assert_allclose(rows, np.repeat(rows[:1], len(forms), 0), atol=1e-6)
        if expected is not None:
            np.testing.assert_allclose(rows[:1], expected, atol=1e-6)
        with path.open("rb") as file:
            np.testing.assert_allclose(function(file), rows[:1], atol=1e-6)
        for form in (pixels, jnp.asarray(floats), str(path), Image.open(path)):  # alone
            np.testing.assert_allclose(function(form), rows[:1], atol=1e-6)
        assert function([]).shape == function(iter(())).shape == (0, rows.shape[1])
        np.testing.assert_allclose(function(np.array([str(path)])), rows[:1], atol=1e-6)


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "LA", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "La", "RGBa"]
)
def test_images_of_every_mode(model, mode):
    grey = Image.fromarray(np.tile(np.arange(0, 256, 4, np.uint8), (64, 1)))
    steps = {"PA": ("RGBA", "P", "PA"), "La": ("LA",), "RGBa": ("RGBA",), "P": ("L",)}
    image = grey.convert("RGB") if mode != "1" else grey
    for step in (*steps.get(mode, ()), mode):
        if (step, mode) != ("LAB", "LAB"):
            image = image.convert(step)
    if mode == "LAB":
        from PIL import ImageCms

        to_lab = (ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"))
        image = ImageCms.profileToProfile(grey.convert("RGB"), *to_lab, outputMode="LAB")
    assert image.mode == mode
    expected = model.crop(np.asarray(grey.convert("RGB")))
    if mode == "1":
        expected = model.crop(np.asarray(grey.convert("1")))
    assert np.abs(model.crop(image).astype(int) - expected).mean() < 4


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_of_16_bits_the_high_byte_is_kept_as_of_files(model, mode):
    levels = np.random.default_rng(0).integers(0, 2**16, (50, 40), np.uint16)
    image = Image.fromarray(levels.astype(np.int32)).convert(mode)
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG")
    assert image.mode == mode
    np.testing.assert_array_equal(model.crop(image), model.crop(file.getvalue()))
    high = np.repeat((levels >> 8).astype(np.uint8)[..., None], 3, axis=2)
    np.testing.assert_array_equal(model.crop(image), model.crop(high))


def test_arrays_of_grey_and_of_truth(model):
    grey = np.random.default_rng(0).integers(0, 256, (50, 40), np.uint8)
    colour = np.repeat(grey[..., None], 3, axis=2)
    for array in (grey, grey[..., None], grey / 127.5 - 1):
        np.testing.assert_array_equal(model.crop(array), model.crop(colour))
    np.testing.assert_array_equal(
        model.crop(grey > 127), model.crop((colour > 127) * np.uint8(255))
    )


def test_a_model_is_five_lines(model, single_label, workdir):
    lines = repr(model).splitlines()
    assert lines == str(model).splitlines() and len(lines) == 5
    assert lines[0].startswith("Model with 5 classes, ") and f"{workdir}/checkpoints/7" in lines[0]
    assert "ResNet of 1-1 blocks, widths 16-32, stem 3 x 3 x 8, float32" in lines[1]
    assert "32 x 32 pixels, short_side, EXIF orientation applied" in lines[2]
    assert "weighted, positives weighted by 12" in lines[3]
    assert "dog, domestic dog" in lines[4]
    unnamed = dataclasses.replace(single_label, hierarchy=None, loss="")
    assert "unknown" in repr(unnamed) and "without names" in repr(unnamed)
    assert len(repr(unnamed).splitlines()) == 5


def test_probabilities_of_small_logits_are_not_nothing(model):
    logits = np.array([[-90, -40, -17, -12.5, 12.5]], np.float32)
    found = model.probabilities_of(logits)
    expected = 1 / (1 + 12 * np.exp(-logits.astype(np.float64)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.slow
def test_ten_crops_are_averaged(workdir, monkeypatch):
    shapes = []

    def recorded(self, images):
        shapes.append(images.shape)
        return outputs(self, images)

    outputs = pretrained.Model.outputs_of
    monkeypatch.setattr(pretrained.Model, "outputs_of", recorded)
    model = pretrained.load(workdir, view="ten_crop", image_size=24)
    model = dataclasses.replace(model, max_batch=20)
    files = _photographs(3)
    views = [transforms.ten_crop_views(decode(file), 24) for file in files]
    logits = np.stack([model.logits(crops).mean(0) for crops in views])
    s = 1 / (1 + np.exp(-logits.astype(np.float64)))
    shapes.clear()
    np.testing.assert_allclose(model.probabilities(files), s / (s + 12 * (1 - s)), atol=1e-5)
    assert [shape[:2] for shape in shapes] == [(2, 10), (1, 10)]  # 20 views at a time


@pytest.mark.parametrize("name", ["central", "whole"])
def test_other_views(workdir, name):
    model = pretrained.load(workdir, view=name)
    data = image_files.jpeg(image_files.quadrants())
    np.testing.assert_array_equal(model.crop(data), model.view(data))
    assert model.probabilities(data).shape == (1, 5)


def test_a_run_says_what_it_was_trained_with(tmp_path):
    """The configurations of the quickstart and of a finetuning that changes its size."""
    quickstart = restart.values(load_config("quickstart"))
    model = pretrained.load(small_model.save(tmp_path / "quick", quickstart))
    assert (model.loss, model.positive_weight, model.image_size) == ("weighted", 4.0, 48)
    finetune = restart.values(load_config("finetune", "224to299"))
    for step, size in ((300_000, 224), (300_001, 299)):
        folder = small_model.save(tmp_path / f"at_{step}", finetune, step=step)
        model = pretrained.load(folder)
        assert (model.loss, model.positive_weight, model.image_size) == ("softmax", 1.0, size)
    assert pretrained.load(folder, image_size=64, loss="weighted").positive_weight == 12.0
    assert pretrained.load(folder, image_size=64).image_size == 64


def test_averaged_weights_are_taken(tmp_path):
    averages = small_model.weights(seed=3)
    folder = small_model.save(tmp_path, small_model.imported("sigmoid"), ema=averages)
    model = pretrained.load(folder)
    jax.tree.map(np.testing.assert_array_equal, model.params, averages["params"])


def test_classes_without_names(tmp_path, workdir):
    folder = small_model.save(tmp_path, small_model.imported("softmax"), class_list="")
    model = pretrained.load(folder)
    assert model.hierarchy is None
    data = image_files.jpeg(image_files.quadrants())
    assert model.probabilities(data).shape == (1, 5)
    for function in (model.tag, model.classify):
        with pytest.raises(pretrained.ModelError, match=r"5 classes .* no names: .*classes="):
            function(data)
    named = pretrained.load(folder, classes=workdir / "dictionary.txt")
    assert len(named.tag(data)[0]) == 5
    few = Hierarchy(("n0", "n1"), ("a", "b"), np.array([-1, 0]))
    few.to_file(tmp_path / "few.txt")
    with pytest.raises(pretrained.ModelError, match=r"few.txt has 2 classes but .* has 5"):
        pretrained.load(folder, classes=tmp_path / "few.txt")


def test_what_a_checkpoint_does_not_say(tmp_path):
    folder = small_model.save(tmp_path, {})
    with pytest.raises(pretrained.ModelError, match="at which size it was trained: give im"):
        pretrained.load(folder)
    model = pretrained.load(folder, image_size=32)
    assert model.logits(_images(1)).shape == (1, 5)
    for function in (model.tag, model.classify, model.probabilities):
        with pytest.raises(pretrained.ModelError, match="does not say with which loss"):
            function(image_files.jpeg(image_files.quadrants()))
    assert pretrained.load(folder, image_size=32, loss="weighted").positive_weight == 12.0


def test_logits_that_are_not_finite_are_told(tmp_path):
    tree = small_model.weights()
    tree["params"]["head"]["bias"] = jnp.full(5, jnp.nan)
    folder = small_model.save(tmp_path, small_model.imported("softmax"), tree=tree)
    with pytest.raises(pretrained.ModelError, match="logits are infinite or nan: the checkpoint"):
        pretrained.load(folder).tag(image_files.jpeg(image_files.quadrants()))


def test_what_cannot_be_is_refused(model, workdir, single_label, tmp_path):
    data = image_files.jpeg(image_files.quadrants())
    with pytest.raises(pretrained.ModelError, match=r"several labels per image .*: use tag"):
        model.classify(data)
    with pytest.raises(
        pretrained.ModelError, match="consistent=True is for models with several labels"
    ):
        single_label.tag(data, consistent=True)
    with pytest.raises(pretrained.ModelError, match="loss='hinge' is none of weighted, sigmoid"):
        pretrained.load(workdir, loss="hinge")
    with pytest.raises(pretrained.ModelError, match="view='centre' is none of central"):
        pretrained.load(workdir, view="centre")
    with pytest.raises(build.ConfigError, match="dtype='float16'"):
        pretrained.load(workdir, dtype="float16")
    with pytest.raises(FileNotFoundError, match="contains no checkpoint"):
        pretrained.load(tmp_path)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.full((32, 32, 3), 255.0), r"from 255 to 255: give floats in \[-1, 1\]"),
        (np.zeros((1, 3, 32, 32), np.float32), r"must be \[B, S, S, 3\]"),
        (np.zeros((1, 32, 32, 3), np.int32), "dtype int32: give floats"),
        (np.full((1, 32, 32, 3), 255.0), r"from 255 to 255: give floats in \[-1, 1\]"),
        (np.full((1, 32, 32, 3), -1.5), r"from -1.5 to -1.5"),
        (np.full((1, 32, 32, 3), np.nan), "from nan to nan"),
    ],
)
def test_images_that_the_network_does_not_take(model, images, message):
    for function in (model.logits, model.features):
        with pytest.raises(ValueError, match=message):
            function(images)


@pytest.fixture(scope="module")
def at_224(tmp_path_factory):
    config = small_model.imported("softmax", image_size=224)
    return pretrained.load(small_model.save(tmp_path_factory.mktemp("large"), config))


@pytest.mark.parametrize("number", [0, 2])
def test_photographs_are_cropped_as_in_the_original(golden_dir, tencent_dir, at_224, number):
    golden = np.load(golden_dir / "preprocessing.npz")[f"cv|im_{number}|center_u8"]
    path = tencent_dir / "images" / f"im_{number}.jpg"
    np.testing.assert_array_equal(at_224.crop(path), golden)
    logits = at_224.logits(golden[None]).astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(at_224.probabilities(path), expected, atol=1e-6)


@pytest.mark.parametrize("number", range(4))
def test_photographs_are_cropped_as_opencv_crops_them(tencent_dir, at_224, number):
    """The steps of the original by hand; its cv2.imread turns images by EXIF too."""
    path = tencent_dir / "images" / f"im_{number}.jpg"
    bgr = cv2.imread(str(path))
    height, width = bgr.shape[:2]
    new_height = 256 if height <= width else height / width * 256
    new_width = width / height * 256 if height <= width else 256
    scaled = cv2.resize(bgr, (int(new_width), int(new_height)))
    top, left = int((new_height - 224) / 2), int((new_width - 224) / 2)
    expected = scaled[top : top + 224, left : left + 224, ::-1]
    np.testing.assert_array_equal(at_224.crop(path), expected)
