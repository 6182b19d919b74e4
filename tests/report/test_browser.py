# SPDX-License-Identifier: BSD-3-Clause
"""The report in a real browser."""

import pytest

from benchmarks.peers.generated_run import write_run
from benchmarks.peers.opened_page import measured
from mlimages_jax.report import command
from tests.support.browser import PHONE, accessibility_problems, browser, overflow, page

__all__ = ["browser", "page"]

NASTY = "</script><img src=x onerror=alert(1)> 🐩"

pytestmark = pytest.mark.slow  # a browser starts


@pytest.fixture(scope="module")
def small(browser, tmp_path_factory):
    """The report of 60 classes; needs the browser so that nothing is made without one."""
    run = write_run(
        tmp_path_factory.mktemp("run"), num_classes=60, examples=30, names=["entity", NASTY]
    )
    command.report(str(run))
    return run / "report.html"


def open_report(page, file, **media):
    page.emulate_media(**media)
    page.goto(file.as_uri())
    page.wait_for_function("document.documentElement.dataset.ready")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_themes_are_accessible_and_draw_all_charts(page, small, scheme):
    open_report(page, small, color_scheme=scheme)
    assert page.locator(".chart svg").count() == page.locator(".chart").count() == 8
    page.locator("#tree .row").first.click()
    assert accessibility_problems(page) == []
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (colour == "rgb(23, 23, 26)") == (scheme == "dark")
    text = page.locator(".chart svg text").first
    assert text.evaluate("(one) => getComputedStyle(one).fill") == page.evaluate(
        "getComputedStyle(document.body).color"
    )


def test_nothing_is_wider_than_a_phone(page, small):
    page.set_viewport_size(PHONE)
    open_report(page, small)
    page.locator("#tree .row").first.click()
    assert overflow(page) == 0


def test_the_tree_opens_and_closes_by_keyboard(page, small):
    open_report(page, small)
    root = page.locator("#tree > ul > li > .row")
    assert root.count() == 1
    root.focus()
    page.keyboard.press("Enter")
    assert root.get_attribute("aria-expanded") == "true"
    assert page.locator("#tree ul ul .row").count() == 6
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert page.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true"
    assert NASTY in page.locator("#tree").inner_text()
    root.click()
    assert page.locator("#tree ul ul").count() == 0


def test_classes_are_found_and_ordered(page, small):
    open_report(page, small)
    page.locator("#filter").fill("NUMBER 5")
    assert page.locator("#found").inner_text() == "15 of 60 classes"
    assert "entity" in page.locator("#tree").inner_text()  # the path
    page.locator("#order").select_option(label="average precision")
    shown = [row.split()[0] for row in page.locator("#tree .figure:nth-child(2)").all_inner_texts()]
    values = [float(one) for one in shown if one[0].isdigit()]
    assert len(shown) == 15 and len(values) >= 12
    assert values == sorted(values, reverse=True)
    page.locator("#filter").fill("no such class")
    assert page.locator("#tree .row").count() == 0


def test_all_images_can_be_shown(page, small):
    open_report(page, small)
    images = page.locator(".images > li:visible")
    assert images.count() == 24
    page.get_by_role("button", name="Show all 30 images").click()
    assert images.count() == 30


def test_it_prints_in_light_colours(page, small):
    open_report(page, small, color_scheme="dark", media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(253, 253, 252)"
    assert page.locator("nav").is_hidden() and len(page.pdf()) > 50_000


def test_all_classes_of_ml_images_are_soon_there(page, tmp_path):
    run = write_run(tmp_path / "run")
    command.report(str(run))
    file = run / "report.html"
    assert file.stat().st_size < 15e6
    opened = measured(page, file)
    assert opened.layout_shift < 0.01
    assert opened.interactive < 30, "3 s on an idle machine: see benchmarks/report.py"
