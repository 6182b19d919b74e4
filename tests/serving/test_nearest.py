# SPDX-License-Identifier: BSD-3-Clause
"""The nearest images of an export, by the routes and from a folder."""

import io
import json
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="pip install -e '.[serve]'")
from starlette.testclient import TestClient

from mlimages_jax.checkpoints import weights_digest
from mlimages_jax.features.export.components import Components
from mlimages_jax.serving.app import create_app
from mlimages_jax.serving.limits import ServingError
from mlimages_jax.serving.nearest import open_nearest
from mlimages_jax.serving.schemas import TagsAnswer
from mlimages_jax.serving.service import MAX_NEAREST, Service
from tests.features.feature_sets import write_export
from tests.support import exported_colours
from tests.support.running_server import png
from tests.support.served_model import ColourModel

FILES = [("files", ("a.png", png())), ("files", ("b.png", b"text"))]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    ready = threading.Event()
    nearest = exported_colours.nearest_images(tmp_path_factory.mktemp("export"))
    service = Service(ColourModel(), delay=0.0, nearest=nearest, tell=lambda _: ready.set())
    with TestClient(create_app(service)) as client:
        assert ready.wait(60)
        yield client


def test_the_nearest_come_first_with_their_cosine(client):
    answer = client.post("/v1/tags?nearest=2", files=FILES)
    TagsAnswer.model_validate_json(answer.content)
    good, bad = answer.json()["images"]
    first, second = good["nearest"]
    assert (first["row"], first["name"]) == (2, "brown.png")
    assert first["similarity"] == pytest.approx(1, abs=1e-6) and first["similarity"] <= 1
    assert (second["row"], second["name"]) == (3, "gold.png")
    # (204, 102, 51) and (255, 215, 0)
    cosine = (204 * 255 + 102 * 215) / np.hypot(np.hypot(204, 102), 51) / np.hypot(255, 215)
    assert second["similarity"] == pytest.approx(cosine, abs=1e-6)
    assert "nearest" not in bad
    assert len(client.post("/v1/tags?nearest=100", files=FILES).json()["images"][0]["nearest"]) == 4
    assert client.get("/v1/model").json()["exported"] == 4


def test_they_are_not_there_unless_asked_for(client):
    assert "nearest" not in client.post("/v1/tags", files=FILES).json()["images"][0]
    beyond = client.post(f"/v1/tags?nearest={MAX_NEAREST + 1}", files=FILES)
    assert beyond.status_code == 422 and "nearest" in beyond.json()["error"]["message"]


def test_thumbnails_of_the_export_and_of_nothing_else(client):
    answer = client.get("/v1/exported/4")
    assert answer.headers["Content-Type"] == "image/jpeg"
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.getpixel((4, 4))[0] > 250 > 5 > image.getpixel((4, 4))[2]
    for row, status in (("0", 404), ("5", 404), ("-1", 422), ("..%2f1", 404), (f"{2**63}", 422)):
        answer = client.get(f"/v1/exported/{row}")
        assert answer.status_code == status and answer.json()["error"]["message"], row


def test_without_an_export_it_says_how_to_give_one():
    with TestClient(create_app(Service(ColourModel(), tell=lambda _: None))) as client:
        answer = client.post("/v1/tags?nearest=1", files=FILES)
        assert answer.status_code == 422 and "--features" in answer.json()["error"]["message"]
        assert client.get("/v1/exported/0").status_code == 404
        assert client.get("/v1/model").json()["exported"] == 0


def test_an_export_of_this_network_is_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(weights_digest, "weights_digest", lambda _: "ours")
    model = SimpleNamespace(params={}, batch_stats={}, network=ColourModel.network)
    folder = write_export(tmp_path / "export", np.eye(3), errors={1: "truncated"})
    nearest = open_nearest(str(folder), model)
    ((first, second),) = nearest.of(np.array([[0.1, 0.0, 0.9]]), k=5)
    assert (first.name, second.name) == ("2.jpg", "0.jpg")
    bad = np.array([[np.nan, 0, 1], [np.inf, 0, 1], [0, 0, 1e300], [0, 0, 1]])
    assert [len(found) for found in nearest.of(bad, k=5)] == [0, 0, 0, 2], "nan is like none"
    manifest = json.loads((folder / "features.json").read_text())
    for change, message in (
        ({"checkpoint": {"weights": "theirs"}}, "another network"),
        ({"complete": False}, "not complete"),
    ):
        (folder / "features.json").write_text(json.dumps(manifest | change))
        with pytest.raises(ServingError, match=f"--features=.*{message}"):
            open_nearest(str(folder), model)
    with pytest.raises(ServingError, match=r"--features=.*mlimages export"):
        open_nearest(str(tmp_path), model)
    components = Components(
        np.full(3, 0.5, np.float32), np.eye(3, dtype=np.float32)[:2], np.ones(2), 9
    )
    short = write_export(tmp_path / "short", np.eye(3), components=components)
    nearest = open_nearest(str(short), model)
    ((found, *_),) = nearest.of(np.array([[0.1, 0.9, 0.7]]), k=1)
    # (-.4, .4) beside the second image, (-.5, .5); its third feature is not in the components
    assert found.name == "1.jpg" and found.similarity == pytest.approx(1)
    (short / "components.npz").unlink()
    with pytest.raises(ServingError, match=r"contains no components.npz"):
        open_nearest(str(short), model)
    wide = write_export(tmp_path / "wide", np.eye(4))
    with pytest.raises(ServingError, match="another network"):
        open_nearest(str(wide), model)
