# SPDX-License-Identifier: BSD-3-Clause
"""The page of `mlimages tag --html`: what it holds, and in a browser what it shows."""

import json
import re
from urllib.parse import unquote

import numpy as np
import pytest

from mlimages_jax.inference.image_source import ImageFiles, open_images
from mlimages_jax.inference.tag_sheet import TagSheet
from mlimages_jax.inference.thumbnails import Thumbnails
from mlimages_jax.labels.hierarchy import Hierarchy
from tests.support import browser as in_browser
from tests.support import image_files
from tests.support.browser import browser, page
from tests.support.five_classes import CLASS_LIST

__all__ = ["browser", "page"]

HOSTILE = "</script><script>alert(1)</script> \"'&\N{GRINNING FACE}"
ANIMAL, DOG, POODLE, VEHICLE, CAR = range(5)
MANY = 10_000
LIMITS = np.array([0.5, 0.4, 0.1, 0.5, -np.inf])
TAGS = {  # doubt
    "a.jpg": [(ANIMAL, 0.9), (DOG, 0.6), (POODLE, 0.3)],  # 0.2
    "b.jpg": [(CAR, 0.93)],  # 0.43: no threshold is as 0.5
    "holiday/c d#e?.jpg": [(DOG, 0.41)],  # 0.01
    "no tags.jpg": [],
    "z.jpg": None,  # unreadable
    f"{HOSTILE.replace('/', '')}.jpg": [(CAR, 0.8), (VEHICLE, 0.7)],  # 0.2
}


def _hierarchy(class_list=CLASS_LIST):
    return Hierarchy.from_text(class_list.replace("poodle", HOSTILE), where="a test")


def _rows(source, tags):
    for name in source.names:
        found = tags[name]
        if found is None:
            yield {"image": name, "error": "truncated: it ends early"}
        else:
            yield {"image": name, "tags": [{"index": i, "score": score} for i, score in found]}


def _write(folder, names=TAGS):
    photos = folder / "photos"
    for number, name in enumerate(names):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        data = image_files.jpeg(np.full((90, 120, 3), 40 * number + 20, np.uint8))
        (photos / name).write_bytes(data if TAGS[name] is not None else data[:40])
    return open_images(photos)


def _sheet(path, *, limits=LIMITS, one_class=False):
    return TagSheet(path, _hierarchy(), limits=limits, one_class=one_class)


def _data(path):
    text = path.read_text()
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    return json.loads(data)


@pytest.fixture
def sheet(tmp_path):
    source = _write(tmp_path)
    path = tmp_path / "my tags.html"
    assert _sheet(path).update(source, _rows(source, TAGS)) == "my tags.html shows 6 images"
    return path


def test_doubt_is_the_distance_to_the_nearest_threshold(sheet):
    doubts = {image["name"]: image["doubt"] for image in _data(sheet)["images"]}
    assert list(doubts.values()) == [0.2, 0.2, 0.43, 0.01, None, None]


@pytest.mark.parametrize(
    ("tags", "doubt"), [([(CAR, 0.5), (DOG, 0.45)], 0.05), ([(CAR, 0.8)], 0.8), ([], None)]
)
def test_with_one_class_an_image_doubt_is_the_lead_of_the_best(tmp_path, tags, doubt):
    source = _write(tmp_path, ["a.jpg"])
    path = tmp_path / "tags.html"
    _sheet(path, limits=None, one_class=True).update(source, _rows(source, {"a.jpg": tags}))
    (image,) = _data(path)["images"]
    assert image["doubt"] == doubt


def test_images_and_thumbnails_are_found_from_the_page(sheet):
    data = _data(sheet)
    for image in data["images"]:
        assert (sheet.parent / unquote(image["address"])).is_file()
        assert bool(image["thumbnail"]) == (TAGS[image["name"]] is not None)
        if image["thumbnail"]:
            assert (sheet.parent / unquote(data["thumbnails"]) / image["thumbnail"]).is_file()


def test_names_cannot_end_the_data_or_reorder_text(sheet):
    text = sheet.read_text()
    assert "alert(1)</script> " not in text and HOSTILE in json.dumps(
        _data(sheet)["classes"], ensure_ascii=False
    ).replace('\\"', '"')
    assert not re.search(r"https?:|innerHTML|insertAdjacentHTML|eval\(", text)


def test_more_images_and_images_that_are_gone(sheet):
    assert len(list(sheet.parent.glob("my tags.html.thumbnails/*/*.jpg"))) == 5
    (sheet.parent / "photos" / "a.jpg").unlink()
    more = image_files.jpeg(image_files.quadrants())
    (sheet.parent / "photos" / "new.jpg").write_bytes(more)
    source = open_images(sheet.parent / "photos")
    _sheet(sheet).update(source, _rows(source, TAGS | {"new.jpg": [(CAR, 0.6)]}))
    names = [image["name"] for image in _data(sheet)["images"]]
    assert "new.jpg" in names and "a.jpg" not in names
    assert len(list(sheet.parent.glob("my tags.html.thumbnails/*/*.jpg"))) == 5


def _cards(page):
    # Their text, not innerText: that is empty while `content-visibility: auto` skips a new card.
    return page.locator("article h2").all_text_contents()


@pytest.mark.slow
def test_filters_and_order(page, sheet):
    page.goto(sheet.as_uri())
    assert len(_cards(page)) == 6
    page.get_by_text("6 of 6 images").wait_for()
    first = page.locator("article", has_text="a.jpg").first
    assert first.locator(".tag").all_text_contents()[:2] == ["animal0.90", "dog0.60"]
    assert first.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)")

    page.locator("#order").select_option("doubt")
    by_doubt = _cards(page)
    assert by_doubt[0] == "holiday/c d#e?.jpg"
    assert by_doubt[3:] == ["b.jpg", "no tags.jpg", "z.jpg"]

    page.get_by_role("button", name="dog 2", exact=True).click()
    assert _cards(page) == ["holiday/c d#e?.jpg", "a.jpg"]
    page.locator("#tags button", has_text="alert(1)").click()
    assert _cards(page) == ["a.jpg"]
    page.get_by_role("button", name="Show all").click()
    page.locator("#find-image").fill("HOLIDAY")
    assert _cards(page) == ["holiday/c d#e?.jpg"]
    page.locator("#find-image").fill("")
    page.locator("#only").select_option("unread")
    assert _cards(page) == ["z.jpg"]
    page.get_by_text("truncated: it ends early").wait_for()
    page.locator("#only").select_option("untagged")
    assert _cards(page) == ["no tags.jpg"]

    page.locator("#find-tag").fill("dog")
    assert page.locator("#tags button:visible").all_inner_texts() == ["animal\n2", "dog\n2"]


@pytest.mark.slow
def test_an_image_opens_and_one_that_is_gone_leaves_its_card(page, sheet):
    for thumbnail in sheet.parent.glob("my tags.html.thumbnails/*/*.jpg"):
        thumbnail.unlink()
    page.goto(sheet.as_uri())
    page.get_by_text("no preview").nth(5).wait_for()
    page.get_by_role("link", name="holiday/c d#e?.jpg").click()
    page.wait_for_url("**/photos/holiday/c%20d%23e%3F.jpg")


@pytest.mark.slow
def test_of_ten_thousand_images_only_those_near_are_drawn(page, tmp_path, monkeypatch):
    monkeypatch.setattr(Thumbnails, "update", lambda _, source: [""] * len(source))
    names = [f"{number:05d}.jpg" for number in range(MANY)]
    rng = np.random.default_rng(0)
    tags = {
        name: [(int(index), round(float(score), 3))]
        for name, index, score in zip(
            names, rng.integers(0, 5, MANY), rng.uniform(0.5, 1, MANY), strict=True
        )
    }
    source = ImageFiles(tmp_path, names, stamps=np.zeros((MANY, 2), np.int64))
    path = tmp_path / "tags.html"
    _sheet(path).update(source, _rows(source, tags))
    assert path.stat().st_size < 2_000_000
    page.goto(path.as_uri())
    page.get_by_text("10,000 of 10,000 images").wait_for()
    assert len(_cards(page)) < 500
    page.locator("#order").select_option("doubt")
    page.locator("#tags button", has_text="car").click()
    count = sum(index == CAR for ((index, _),) in tags.values())
    page.get_by_text(f"{count:,} of 10,000 images with car").wait_for()
    before = len(_cards(page))
    page.mouse.wheel(0, 100_000)
    page.wait_for_function(f"document.querySelectorAll('article').length > {before}")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [in_browser.PHONE, in_browser.DESKTOP], ids=["phone", "desktop"])
@pytest.mark.slow
def test_it_is_readable(page, sheet, theme, size, tmp_path):
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size(size)
    page.goto(sheet.as_uri())
    page.locator("#tags").evaluate("details => { details.open = true; }")
    page.locator("#tags button").first.click()
    assert in_browser.overflow(page) == 0
    assert in_browser.accessibility_problems(page) == []
    page.screenshot(path=tmp_path / "page.png", full_page=True)
