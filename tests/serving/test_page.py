# SPDX-License-Identifier: BSD-3-Clause
"""The demo page, in a browser."""

import pytest

pytest.importorskip("fastapi", reason="pip install -e '.[serve]'")
from tests.support import browser as in_browser
from tests.support import exported_colours, image_files
from tests.support.browser import browser, page
from tests.support.running_server import png, running
from tests.support.served_model import ColourModel

__all__ = ["browser", "page"]

LIMITS = (0.9, 0.3, 0.15, 0.9, 0.9)  # of the five classes

pytestmark = pytest.mark.slow  # a browser starts


@pytest.fixture(scope="module")
def served():
    with running(ColourModel(limits=LIMITS)) as served:
        yield served


@pytest.fixture
def demo(page, served):
    page.goto(served.address)
    page.get_by_text("5 classes").wait_for()
    return page


def test_the_nearest_images_of_an_export_are_shown(page, tmp_path):
    nearest = exported_colours.nearest_images(tmp_path)
    (tmp_path / "photos" / "gold.png").unlink()
    with running(nearest=nearest) as served:
        page.goto(served.address)
        page.get_by_text("5 classes").wait_for()
        _choose(page, ("brown.png", png()))
        page.get_by_text("gold.png").wait_for()  # by its name, as the image is gone
        assert page.locator(".nearest b").all_inner_texts()[0] == "1.00"
        names = page.locator(".nearest li").evaluate_all(
            "items => items.map((e) => e.querySelector('img')?.alt ?? e.firstChild.textContent)"
        )
        assert names[0] == "brown.png" and sorted(names) == sorted(exported_colours.COLOURS)
        shown = page.locator(".nearest img").first
        assert shown.evaluate("image => image.decode().then(() => image.naturalWidth)") == 8


def _file(name, data):
    return {"name": name, "mimeType": "", "buffer": data}


def _choose(demo, *files):
    demo.locator("#files").set_input_files([_file(*one) for one in files])


def _tags(demo):
    """Returns the tree of the only image: (depth, name, score) of each line."""
    return demo.evaluate(
        """() => [...document.querySelectorAll("article .tag")].map((line) => {
            let depth = -1;
            for (let list = line; (list = list.parentElement.closest("ul")); ) depth++;
            return [depth, ...[...line.querySelectorAll("span, b")].map((e) => e.textContent)];
        })"""
    )


def _slide(demo, name, value):
    demo.locator(f"#{name}").evaluate(
        "(e, value) => { e.value = value; e.dispatchEvent(new Event('input')); }", value
    )


def test_it_begins_with_all_tags_above_their_thresholds(demo):
    assert demo.locator("#k").input_value() == "100"
    assert demo.locator("#k-value").inner_text() == "100"


def test_of_a_model_of_one_class_an_image_it_shows_the_best_however_unsure(page):
    model = ColourModel()
    model.loss = "softmax"
    with running(model) as served:
        page.goto(served.address)
        page.get_by_text("5 classes").wait_for()
        _choose(page, ("dark.png", png((60, 30, 10))))
        page.get_by_text("1 image tagged").wait_for()
        assert len(page.locator("article .tag b").all()) == 5


def test_an_image_is_tagged_and_the_controls_choose_its_tags(demo):
    _choose(demo, ("brown.png", png()))
    demo.get_by_text("1 image tagged").wait_for()
    demo.get_by_role("heading", name="brown.png").wait_for()
    assert demo.locator("article img").evaluate("image => image.naturalWidth") == 8
    # animal (0.8) is below its threshold of 0.9, and shown as the parent of what is above.
    assert _tags(demo) == [[0, "animal"], [1, "dog", "0.40"], [2, "poodle", "0.20"]]
    demo.get_by_label("above the threshold of their class").uncheck()
    assert _tags(demo) == [[0, "animal", "0.80"]]
    _slide(demo, "threshold", 0.3)
    assert _tags(demo) == [[0, "animal", "0.80"], [1, "dog", "0.40"]]
    _slide(demo, "k", 1)
    assert _tags(demo) == [[0, "animal", "0.80"]]
    _slide(demo, "threshold", 0.9)
    demo.get_by_text("No tag has such a score.").wait_for()
    demo.get_by_role("button", name="Remove all images").click()
    assert demo.locator("article").count() == 0


def test_a_bad_file_says_why_and_the_others_are_tagged(demo):
    _choose(
        demo,
        ("<img src=x onerror=alert(1)>.png", png()),
        ("notes.jpg", image_files.HTML),
        ("cut.png", png()[:-30]),
        ("\N{GRINNING FACE}.png", b""),
    )
    demo.get_by_text("1 image tagged, 3 images not read").wait_for()
    errors = demo.locator("article", has=demo.locator(".bad"))
    assert errors.count() == 3
    reasons = {"notes.jpg": "HTML", "cut.png": "trunc", "\N{GRINNING FACE}": "no bytes"}
    for name, why in reasons.items():
        told = errors.filter(has_text=name).locator(".bad").inner_text()
        assert why in told and not told.startswith(name)
    names = demo.locator("article h2").all_inner_texts()
    assert "<img src=x onerror=alert(1)>.png" in names


def test_files_can_be_dropped(demo):
    demo.evaluate(
        """(bytes) => {
            const data = new DataTransfer();
            data.items.add(new File([Uint8Array.from(bytes)], "dropped.png"));
            const drop = (name) => document.getElementById("drop").dispatchEvent(
                new DragEvent(name, {dataTransfer: data, bubbles: true, cancelable: true}));
            drop("dragover");
            drop("drop");
        }""",
        list(png()),
    )
    demo.get_by_text("1 image tagged").wait_for()
    assert demo.locator("#drop.over").count() == 0


def test_a_server_that_has_stopped_is_told(demo):
    demo.route("**/v1/tags**", lambda route: route.abort())
    _choose(demo, ("brown.png", png()))
    demo.get_by_text("The server does not answer.").wait_for()
    demo.get_by_text("0 images tagged, 1 image not read").wait_for()


def test_a_busy_server_is_asked_again(demo):
    asked = []

    def busy_once(route):
        asked.append(route.request.url)
        if len(asked) == 1:
            route.fulfill(status=503, headers={"Retry-After": "0"})
        else:
            route.continue_()

    demo.route("**/v1/tags**", busy_once)
    _choose(demo, ("brown.png", png()))
    demo.get_by_text("1 image tagged").wait_for()
    assert len(asked) == 2


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [in_browser.PHONE, in_browser.DESKTOP], ids=["phone", "desktop"])
def test_it_is_readable(demo, theme, size, tmp_path):
    demo.emulate_media(color_scheme=theme)
    demo.set_viewport_size(size)
    long = "a_name_without_any_space_" * 8
    _choose(demo, ("brown.png", png()), (f"{long}.png", png((90, 250, 40))), ("bad.png", b"text"))
    demo.get_by_text("2 images tagged, 1 image not read").wait_for()
    assert in_browser.overflow(demo) == 0
    assert in_browser.accessibility_problems(demo) == []
    demo.screenshot(path=tmp_path / "page.png", full_page=True)
    dark = demo.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (dark == "rgb(23, 23, 26)") == (theme == "dark")
