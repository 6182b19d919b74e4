# SPDX-License-Identifier: BSD-3-Clause
"""Opens a report in a browser and measures when it answers."""

from pathlib import Path
from typing import Any, NamedTuple

_TIMEOUT = 300_000  # milliseconds
_SHIFT = """
() => new Promise((resolve) => {
  let sum = 0;
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) if (!entry.hadRecentInput) sum += entry.value;
  }).observe({type: "layout-shift", buffered: true});
  setTimeout(() => resolve(sum), 100);
})
"""


class Opened(NamedTuple):
    """Times of one page, and how much it moved.

    Attributes:
        interactive: Seconds from the start of the navigation until the root of the class tree was
            opened by a click and the classes below it were there.
        busy: CPU seconds of the page's main thread until then, which other programs do not change.
        complete: Seconds until all charts were drawn.
        layout_shift: Cumulative layout shift without the click's own; 0 is none.
    """

    interactive: float
    busy: float
    complete: float
    layout_shift: float


def measured(page: Any, path: Path) -> Opened:
    """Opens a report with a class tree in a page of Playwright."""
    debugger = page.context.new_cdp_session(page)
    debugger.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(path.as_uri(), wait_until="commit", timeout=_TIMEOUT)
    page.locator("#tree .row").first.click(timeout=_TIMEOUT)
    page.locator("#tree ul ul .row").first.wait_for(timeout=_TIMEOUT)
    interactive = page.evaluate("performance.now()") / 1e3
    metrics = debugger.send("Performance.getMetrics")["metrics"]
    (busy,) = (one["value"] for one in metrics if one["name"] == "TaskDuration")
    page.wait_for_function("document.documentElement.dataset.ready", timeout=_TIMEOUT)
    complete = page.evaluate("performance.now()") / 1e3
    return Opened(interactive, busy, complete, page.evaluate(_SHIFT))
