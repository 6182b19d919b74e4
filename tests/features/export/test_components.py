# SPDX-License-Identifier: BSD-3-Clause
import numpy as np
import pytest

from mlimages_jax.features.export.components import FILE, Components, Moments
from mlimages_jax.features.export.manifest import FeatureFilesError


@pytest.fixture
def features():
    """300 images with 12 features of quite different variance, far from zero."""
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((300, 12)) * np.linspace(3, 0.1, 12)
    return (mixed @ rng.standard_normal((12, 12)) + 5).astype(np.float32)


def _found(features, number):
    moments = Moments(features.shape[1])
    for rows in np.array_split(features, 7):
        moments.add(rows)
    return moments.components(number)


def test_they_are_the_singular_vectors(features):
    found = _found(features, 5)
    centred = features.astype(np.float64) - features.mean(0, dtype=np.float64)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs((found.axes * axes[:5]).sum(1)), 1, atol=1e-5)
    np.testing.assert_allclose(found.explained, (singular**2 / (singular**2).sum())[:5], rtol=1e-6)
    assert found.axes[np.arange(5), np.abs(found.axes).argmax(1)].min() > 0
    assert found.images == 300
    projected = found.project(features)
    assert projected.dtype == np.float32 and projected.shape == (300, 5)
    np.testing.assert_allclose(projected, centred @ found.axes.T, atol=1e-4)


def test_all_of_them_keep_every_distance(features):
    found = _found(features, 12)
    np.testing.assert_allclose(found.explained.sum(), 1)
    of_features = np.linalg.norm(features[:1] - features, axis=1)
    projected = found.project(features)
    np.testing.assert_allclose(np.linalg.norm(projected[:1] - projected, axis=1), of_features,
                               rtol=1e-4)  # fmt: skip


def test_fewer_are_the_first_of_more(features):
    np.testing.assert_array_equal(_found(features, 9).first(4).axes, _found(features, 4).axes)
    assert _found(features, 9).first(4).digest == _found(features, 4).digest
    assert _found(features, 9).digest != _found(features, 4).digest


def test_unreadable_images_count_for_nothing(features):
    unreadable = np.full((3, 12), np.nan, np.float32)
    found = _found(np.concatenate([features[:100], unreadable, features[100:]]), 3)
    assert found.images == 300
    np.testing.assert_allclose(found.axes, _found(features, 3).axes, atol=1e-6)
    assert np.isnan(found.project(unreadable)).all()


def test_equal_images_have_components_too():
    for value in (0, 1, 0.1, 0.7):
        features = np.full((20, 4), value, np.float32)
        found = _found(features, 2)
        assert np.isfinite(found.axes).all() and not found.explained.any()
        np.testing.assert_array_equal(found.project(features), 0)


def test_more_images_than_components_are_needed(features):
    with pytest.raises(ValueError, match="components=5 cannot be found with 5 readable images"):
        _found(features[:5], 5)


def test_more_components_than_features_are_refused(features):
    with pytest.raises(ValueError, match="components=13: the images have 12 features"):
        _found(features, 13)


@pytest.mark.parametrize("offset", [1e8, -1e9])
def test_features_far_from_zero_keep_their_digits(offset):
    rng = np.random.default_rng(1)
    near = rng.standard_normal((400, 6)) * [9, 7, 5, 3, 2, 1]
    # Multiples of 1/64, which a float64 holds also beside the offset.
    near = np.round(near * 64) / 64
    found, far = _found(near, 3), _found(near + offset, 3)
    np.testing.assert_allclose(far.axes, found.axes, atol=1e-6)
    np.testing.assert_allclose(far.explained, found.explained, rtol=1e-6)


def test_merged_sums_are_those_of_all(features):
    first, second, empty = Moments(12), Moments(12), Moments(12)
    first.add(features[:1])
    second.add(features[1:])
    empty.merge(first)
    empty.merge(second)
    empty.merge(Moments(12))
    assert empty.count == 300
    np.testing.assert_allclose(empty.mean, features.mean(0, dtype=np.float64))
    covariance = np.cov(features.astype(np.float64), rowvar=False, bias=True)
    np.testing.assert_allclose(empty.scatter / 300, covariance, rtol=1e-9, atol=1e-12)


def test_the_file_keeps_everything(features, tmp_path):
    found = _found(features, 3)
    found.save(tmp_path)
    again = Components.load(tmp_path)
    assert again.digest == found.digest and again.images == 300
    np.testing.assert_array_equal(again.explained, found.explained)


def test_missing_or_damaged_files_are_named(features, tmp_path):
    with pytest.raises(FeatureFilesError, match=f"{tmp_path} contains no {FILE}"):
        Components.load(tmp_path)
    _found(features, 3).save(tmp_path)
    whole = (tmp_path / FILE).read_bytes()
    for data in (b"", b"text", whole[:-50], whole[:200]):
        (tmp_path / FILE).write_bytes(data)
        with pytest.raises(FeatureFilesError, match=f"{FILE} is damaged"):
            Components.load(tmp_path)
    good = {"mean": np.zeros(2), "axes": np.eye(2), "explained": np.ones(2), "images": 9}
    for name, value, message in (
        ("mean", np.zeros(3), r"axes \(2, 2\), mean \(3,\)"),
        ("axes", np.full((2, 2), np.nan), "finite floats"),
        ("axes", np.full((2, 2), "a"), "finite floats"),
        ("explained", np.array([1, 2]), "finite floats"),
        ("images", np.inf, "infinity"),
    ):
        np.savez(tmp_path / FILE, **good | {name: value})
        with pytest.raises(FeatureFilesError, match=f"is damaged .*{message}"):
            Components.load(tmp_path)
    np.savez_compressed(tmp_path / FILE, **good | {"mean": np.zeros(1 << 16)})
    with pytest.raises(FeatureFilesError, match="unpack to more"):
        Components.load(tmp_path)
    np.savez(tmp_path / FILE, **good)
    with pytest.raises(FeatureFilesError, match="not the file that was exported with"):
        Components.load(tmp_path, digest="0000")
    with pytest.raises(ValueError, match="1 features an image, not 2"):
        Components.load(tmp_path).project(np.ones((3, 1)))
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).mkdir()
    with pytest.raises(IsADirectoryError):  # whatever prevents reading is no damage of the file
        Components.load(tmp_path)
