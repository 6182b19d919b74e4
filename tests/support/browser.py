# SPDX-License-Identifier: BSD-3-Clause
"""A real browser for tests of pages: the system's Chromium, steered by Playwright.

Import `browser` and `page` into the test module that uses them. Playwright keeps an event loop in
the thread of the test as long as `browser` lives, so tests with loops of their own belong into
other modules.
"""

import functools
import json
import shutil
from collections.abc import Iterator
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

import pytest

PHONE = {"width": 360, "height": 740}  # pixels
DESKTOP = {"width": 1280, "height": 800}

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_QUIET = ("--disable-quic", "--disable-sync", "--disable-gpu")  # beside Playwright's own
_LOCAL = ("127.0.0.1", "localhost", "")  # hosts; "" is that of file:, blob: and data:


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Playwright `Browser`; skips where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=_QUIET)


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A `Page` of its own, of a desktop's size; fails on errors of scripts and foreign requests."""
    with browser.new_context(viewport=DESKTOP, reduced_motion="reduce") as context:
        page = context.new_page()
        page.set_default_timeout(20_000)  # milliseconds
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: problems.extend(_foreign(request.url)))
        yield page
        assert not problems


def _foreign(url: str) -> list[str]:
    return [] if urlsplit(url).hostname in (*_LOCAL, None) else [f"asks another server: {url}"]


def overflow(page: Any) -> int:
    """Returns how many pixels of the page are beyond its right edge."""
    return page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )


def accessibility_problems(page: Any) -> list[str]:
    """Returns what axe-core calls serious or critical, a line each, with the first element."""
    # By way of the debugger's protocol, which a page's content security policy does not forbid.
    page.context.new_cdp_session(page).send("Runtime.evaluate", {"expression": _axe()})
    found = page.evaluate("axe.run({resultTypes: ['violations']})")
    return [
        f"{one['id']}: {one['help']}: {json.dumps(one['nodes'][0]['html'])[:200]}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]


@functools.cache
def _axe() -> str:
    return resources.files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
