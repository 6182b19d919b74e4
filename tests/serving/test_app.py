# SPDX-License-Identifier: BSD-3-Clause
"""The routes, with a model whose scores are the colours of an image."""

import asyncio
import base64
import dataclasses
import json
import re
import shutil
import subprocess
import threading

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="pip install -e '.[serve]'")
from starlette.testclient import TestClient

from mlimages_jax.inference import tagging
from mlimages_jax.serving import page
from mlimages_jax.serving.app import create_app
from mlimages_jax.serving.limits import Limits, ServingError
from mlimages_jax.serving.schemas import ErrorAnswer, FeaturesAnswer, TagsAnswer
from mlimages_jax.serving.service import Service
from tests.support import image_files
from tests.support.running_server import png
from tests.support.served_model import ColourModel

LIMITS = Limits(images=3, image_bytes=50_000, request_bytes=120_000, pixels=90_000, queue=4)
HOSTILE = "<script>alert(1)</script>"
BROWN = png()  # animal 0.8, dog 0.4, poodle 0.2


class Server:
    """A service with its client."""

    def __init__(self, model, limits=LIMITS):
        self.model = model
        self.ready = threading.Event()
        self.service = Service(model, delay=0.0, limits=limits, tell=lambda _: self.ready.set())
        self.client = TestClient(create_app(self.service), raise_server_exceptions=False)

    def __enter__(self):
        self.client.__enter__()
        return self

    def __exit__(self, *_):
        self.model.gate.set()
        self.client.__exit__(None, None, None)

    def post(self, *images, route="/v1/tags", **parameters):
        files = [("files", (f"{number}.png", data)) for number, data in enumerate(images)]
        return self.client.post(route, files=files, params=parameters)

    def post_body(self, body, kind, route="/v1/tags"):
        return self.client.post(route, content=body, headers={"Content-Type": kind})


@pytest.fixture(scope="module")
def server():
    with Server(ColourModel()) as server:
        assert server.ready.wait(60)
        yield server


def _scores(answer):
    assert answer.status_code == 200, answer.text
    TagsAnswer.model_validate_json(answer.content)
    return [{tag["id"]: tag["score"] for tag in one["tags"]} for one in answer.json()["images"]]


def _error(answer, status, reason):
    assert (answer.status_code, answer.json()["error"]["reason"]) == (status, reason), answer.text
    ErrorAnswer.model_validate_json(answer.content)
    return answer.json()["error"]["message"]


def test_tags_of_a_file(server):
    answer = server.post(BROWN, k=3)
    assert _scores(answer) == [{"n0": 0.8, "n1": 0.4, "n2": 0.2}]
    assert answer.json()["images"][0] == {
        "name": "0.png",
        "error": None,
        "tags": [
            {"index": 0, "id": "n0", "name": "animal", "score": 0.8, "path": ["animal"],
             "threshold": None},
            {"index": 1, "id": "n1", "name": "dog, domestic dog", "score": 0.4,
             "path": ["animal", "dog, domestic dog"], "threshold": None},
            {"index": 2, "id": "n2", "name": "poodle", "score": 0.2,
             "path": ["animal", "dog, domestic dog", "poodle"], "threshold": None},
        ],
    }  # fmt: skip


def test_the_parameters_choose_tags(server):
    assert len(_scores(server.post(BROWN))[0]) == 5
    assert _scores(server.post(BROWN, k=1)) == [{"n0": 0.8}]
    assert _scores(server.post(BROWN, threshold=0.4)) == [{"n0": 0.8, "n1": 0.4}]
    assert _scores(server.post(BROWN, threshold=1)) == [{}]
    for parameters in ({"k": 0}, {"k": "many"}, {"k": 1001}, {"threshold": 1.5}):
        (name,) = parameters
        assert name in _error(server.post(BROWN, **parameters), 422, "parameter")


def test_without_k_thresholds_decide_how_many_tags_there_are(monkeypatch):
    monkeypatch.setattr(tagging, "FEW", 2)
    with Server(ColourModel(limits=(0.3, 0.3, 0.1, 0.1, 0.1))) as server:
        assert server.ready.wait(60)
        assert len(_scores(server.post(BROWN))[0]) == 3
        assert len(_scores(server.post(BROWN, k=1))[0]) == 1
        assert len(_scores(server.post(BROWN, threshold=0.1))[0]) == 3
        assert len(_scores(server.post(BROWN, threshold=0))[0]) == 2  # limits nothing
        server.model.loss = "softmax"
        server.service.tagger.cache_clear()
        assert _scores(server.post(BROWN)) == [{"n0": 0.8}]


def test_thresholds_of_classes_are_used_unless_another_one_is_given():
    with Server(ColourModel(limits=(0.9, 0.3, 0.9, 0.9, 0.9))) as server:
        assert server.ready.wait(60)
        (image,) = server.post(BROWN).json()["images"]
        assert [(tag["id"], tag["threshold"]) for tag in image["tags"]] == [("n1", 0.3)]
        assert _scores(server.post(BROWN, threshold=0.5)) == [{"n0": 0.8}]
        assert len(_scores(server.post(BROWN, threshold=0))[0]) == 5
        assert server.client.get("/v1/model").json()["has_thresholds"] is True


def test_several_files_keep_their_order_and_a_bad_one_says_why(server):
    answer = server.post(png((255, 0, 0)), b"no image at all", png((0, 0, 255)), k=1)
    assert _scores(answer) == [{"n0": 1.0}, {}, {"n2": 1.0}]
    assert [one["name"] for one in answer.json()["images"]] == ["0.png", "1.png", "2.png"]
    assert answer.json()["images"][1]["error"]["reason"] == "not_an_image"


def test_json_with_base64(server):
    data = base64.b64encode(BROWN).decode()
    body = {"images": [{"data": data, "name": "a.png"}, {"data": data}]}
    answer = server.post_body(json.dumps(body), "application/json; charset=utf-8")
    assert len(_scores(answer)) == 2
    assert [one["name"] for one in answer.json()["images"]] == ["a.png", "image"]


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg", "application/octet-stream"])
def test_the_file_itself(server, kind):
    assert _scores(server.post_body(BROWN, kind))[0]["n0"] == 0.8


def test_features(server):
    answer = server.post(BROWN, route="/v1/features")
    FeaturesAnswer.model_validate_json(answer.content)
    np.testing.assert_allclose(answer.json()["images"][0]["features"], [0.8, 0.4, 0.2], atol=1e-6)
    message = _error(server.post(b"text", route="/v1/features"), 415, "not_an_image")
    assert message.startswith("0.png: ")


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (b"", 422, "empty"),
        (b"just text", 415, "not_an_image"),
        (image_files.HTML, 415, "not_an_image"),
        (BROWN[:-30], 422, "truncated"),
        (image_files.jpeg(image_files.quadrants())[:-60], 422, "truncated"),
        (png((0, 0, 0), size=(1, 65_000)), 422, "elongated"),
        (png((0, 0, 0), size=(301, 300)), 413, "too_large"),  # pixels
        (BROWN + bytes(50_000), 413, "too_large"),  # bytes
    ],
    ids=("nothing", "text", "HTML", "PNG", "JPEG", "a column", "pixels", "bytes"),
)
def test_a_bad_file_says_why(server, data, status, reason):
    assert _error(server.post(data), status, reason).startswith("0.png: ")


def test_a_header_that_claims_too_many_pixels_is_refused_before_decoding(server, monkeypatch):
    seen = []
    monkeypatch.setattr(server.model, "crop", seen.append)
    claims = BROWN[:16] + (65_000).to_bytes(4, "big") * 2 + BROWN[24:]
    assert "65000 x 65000" in _error(server.post(claims), 413, "too_large")
    assert not seen


@pytest.mark.parametrize(
    ("body", "kind", "status", "message"),
    [
        (b"", "text/plain", 415, "multipart/form-data"),
        (b"{}", "application/json", 422, "images: Field required"),
        (b'{"images": []}', "application/json", 422, "no image"),
        (b'{"images": [{"url": "http://a"}]}', "application/json", 422, "images.0.data"),
        (b'{"images": [{"data": "", "url": "x"}]}', "application/json", 422, "images.0.url"),
        (b'{"images": [{"data": "data:image/png;base64,aa"}]}', "application/json", 422, "base64"),
        (b"{", "application/json", 422, "JSON"),
        (b"[" * 100_000, "application/json", 422, "JSON"),
        (b'{"images": [{"data": "\xff"}]}', "application/json", 422, "JSON"),
        (b"x", "multipart/form-data", 400, "boundary"),
        (b"x", "multipart/form-data; boundary=y", 400, "multipart"),
        (b"", "multipart/form-data; boundary=y", 422, "no image"),
    ],
)
def test_a_body_that_is_not_understood_says_what_to_send(server, body, kind, status, message):
    answer = server.post_body(body, kind)
    assert answer.status_code == status, answer.text
    assert message in answer.json()["error"]["message"]


def test_too_many_images(server):
    data = base64.b64encode(BROWN).decode()
    body = json.dumps({"images": [{"data": data}] * 4})
    assert "at most 3" in _error(server.post_body(body, "application/json"), 413, "too_many")
    assert "3" in _error(server.post(*[BROWN] * 4), 400, "malformed")


def test_too_large_requests_are_refused_by_their_header_or_when_they_exceed_it(server):
    message = _error(server.post_body(bytes(120_001), "image/png"), 413, "too_large")
    assert message.startswith("the request is too large")
    chunks = (bytes(30_000) for _ in range(5))  # without Content-Length
    assert _error(server.post_body(chunks, "image/png"), 413, "too_large") == message
    assert server.service.bytes.used == server.service.images.used == 0


def test_a_slow_body_is_given_up(server, monkeypatch):
    slow = dataclasses.replace(LIMITS, body_seconds=0.05)
    monkeypatch.setattr(server.service, "limits", slow)
    sent = []

    used = []

    async def receive():
        used.append(server.service.images.used)
        await asyncio.sleep(3600)

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/tags", "raw_path": b"/v1/tags",
        "query_string": b"", "headers": [(b"content-type", b"image/png")], "root_path": "",
        "scheme": "http", "http_version": "1.1", "server": None, "client": None,
    }  # fmt: skip
    asyncio.run(server.client.app(scope, receive, send))
    assert used == [0]  # it held no place in the queue
    assert sent[0]["status"] == 408 and b"0.05 seconds" in sent[1]["body"]


def test_a_full_queue_says_when_to_come_again(server):
    with server.service.images.hold() as held:
        held.add(LIMITS.queue)
        answer = server.post(BROWN)
        _error(answer, 503, "busy")
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        assert server.client.get("/healthz").status_code == 200
    with server.service.images.hold() as held:
        held.add(LIMITS.queue - 2)
        assert server.post(BROWN, BROWN).status_code == 200
        _error(server.post(BROWN, BROWN, BROWN), 503, "busy")
    with server.service.bytes.hold() as held:
        held.add(server.service.bytes.limit - 10)
        _error(server.post(BROWN), 503, "busy")
    assert server.post(BROWN).status_code == 200


def test_an_error_of_the_network_costs_only_its_request(server, monkeypatch):
    monkeypatch.setattr(server.model, "error", MemoryError("of the device"))
    message = _error(server.post(BROWN), 500, "internal")
    assert "of the device" not in message
    monkeypatch.undo()
    assert server.post(BROWN).status_code == 200
    assert server.service.images.used == 0


def test_it_is_ready_when_all_sizes_are_compiled_and_not_while_it_drains():
    model = ColourModel()
    model.gate.clear()
    with Server(model) as server:
        health = server.client.get("/healthz")
        assert (health.status_code, health.json()) == (503, {"status": "starting"})
        answer = server.post(BROWN)
        _error(answer, 503, "starting")
        assert int(answer.headers["Retry-After"]) >= 1
        model.gate.set()
        assert server.ready.wait(60)
        assert sorted({*model.batches}) == [1, 2, 4]
        assert server.client.get("/healthz").json() == {"status": "ready"}
        server.service.drain()
        health = server.client.get("/healthz")
        assert (health.status_code, health.json()) == (503, {"status": "draining"})
        assert server.post(BROWN).status_code == 200  # what still arrives is answered


def test_a_network_that_does_not_compile_is_told():
    model = ColourModel()
    model.error = MemoryError("of the device")
    with Server(model) as server:
        deadline = threading.Event()
        while server.service.state == "starting":
            deadline.wait(0.01)
        assert server.client.get("/healthz").json() == {"status": "failed"}
        assert server.service.failure is model.error


def test_metrics():
    with Server(ColourModel()) as server:
        assert server.ready.wait(60)
        server.post(BROWN, b"text")
        server.client.get("/no/such/path")
        text = server.client.get("/metrics").text
    for line in (
        'mlimages_images_total{result="ok"} 1.0',
        'mlimages_images_total{result="not_an_image"} 1.0',
        'mlimages_request_seconds_count{route="/v1/tags",status="200"} 1.0',
        'mlimages_request_seconds_count{route="other",status="404"} 1.0',
        "mlimages_batch_images_sum 1.0",
        "mlimages_queue_images 0.0",
        "mlimages_ready 1.0",
    ):
        assert line in text.splitlines(), text


def test_openapi_describes_the_routes(server):
    described = server.client.get("/openapi.json").json()
    assert sorted(described["paths"]) == [
        "/healthz", "/v1/exported/{row}", "/v1/features", "/v1/model", "/v1/tags",
    ]  # fmt: skip
    tags = described["paths"]["/v1/tags"]["post"]
    assert [one["name"] for one in tags["parameters"]] == ["k", "threshold", "nearest"]
    assert sorted(tags["responses"]) == ["200", "400", "408", "413", "415", "422", "503"]
    assert "multipart/form-data" in tags["requestBody"]["content"]
    for reference in re.findall(r'"\$ref": ?"([^"]+)"', json.dumps(described)):
        where, name = reference.rsplit("/", 1)
        assert where == "#/components/schemas" and name in described["components"]["schemas"]
    for route in ("/docs", "/redoc"):  # these would load scripts from other servers
        _error(server.client.get(route), 404, "http")
    answer = server.client.get("/v1/tags")
    _error(answer, 405, "http")
    assert answer.headers["Allow"] == "POST"


def test_names_are_given_back_as_data():
    class_list = (
        "category_index\tcategory_id\tindex_of_parent_category\tcategory name\n"
        f"0\tn0\t-1\t{HOSTILE}\n"
        + "".join(f"{index}\tn{index}\t0\t\U0001f600{index}\n" for index in range(1, 5))
    )
    with Server(ColourModel(class_list=class_list)) as server:
        assert server.ready.wait(60)
        files = [("files", (f"{HOSTILE}\udcff\n.png".encode("utf-8", "replace"), BROWN))]
        answer = server.client.post("/v1/tags", files=[("files", (files[0][1][0].decode(), BROWN))])
        assert answer.headers["Content-Type"] == "application/json"
        (image,) = answer.json()["images"]
        assert HOSTILE in image["name"] and "\n" not in image["name"]
        assert {tag["name"] for tag in image["tags"]} >= {HOSTILE, "\U0001f6001"}


def test_the_page_is_one_file_that_loads_nothing_else(server):
    answer = server.client.get("/")
    assert answer.status_code == 200 and answer.text == page.html()
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and policy.count("'sha256-") == 2
    assert not re.search(r"https?:|//\w+\.\w|innerHTML|insertAdjacentHTML|eval\(", answer.text)
    assert not re.search(r"\son\w+=|\sstyle=", answer.text)  # the policy would forbid them


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
def test_the_page_keeps_tags_of_the_same_name_apart_and_shows_their_ancestors():
    (script,) = re.findall(r"<script>(.*?)</script>", page.html(), flags=re.DOTALL)
    functions = "\n".join(
        re.findall(r"^function (?:isShown|treeOf)\(.*?^}$", script, flags=re.DOTALL | re.MULTILINE)
    )
    code = (
        functions
        + """
        const own = {checked: true}, threshold = {value: "0.5"};
        const tag = (index, score, path, limit) => ({index, score, path, threshold: limit});
        const tags = [
            tag(1, .9, ["a", "b"], .8), tag(2, .7, ["a", "b"], .8), tag(3, .1, ["c"], null)];
        const shape = (node) => [...node.children.values()].map(
            (child) => [child.name, child.tag && child.tag.index, child.best, shape(child)]);
        const shown = [tags.filter(isShown).length];
        own.checked = false;
        shown.push(tags.filter(isShown).length);
        console.log(JSON.stringify([shown, shape(treeOf(tags))]));
    """
    )
    done = subprocess.run(["node", "-e", code], stdout=subprocess.PIPE, text=True, check=True)
    assert json.loads(done.stdout) == [
        [2, 2],
        [["a", None, 0.9, [["b", 1, 0.9, []], ["b", 2, 0.7, []]]], ["c", 3, 0.1, []]],
    ]


@pytest.mark.parametrize(
    "wrong", [{"images": 9}, {"pixels": 2**40}, {"queue": 0}, {"request_bytes": 10**12}]
)
def test_limits_that_contradict_each_other(wrong):
    with pytest.raises(ServingError):
        dataclasses.replace(Limits(queue=8, images=8), **wrong)
