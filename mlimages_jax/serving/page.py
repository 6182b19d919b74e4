# SPDX-License-Identifier: BSD-3-Clause
"""The demo page: one file, which loads nothing from other servers and may not."""

import base64
import functools
import hashlib
import re
from importlib import resources

from mlimages_jax.inference.pages import with_shared_parts


@functools.cache
def html() -> str:
    """Returns the page."""
    template = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    return with_shared_parts(template)


def _sources(tag: str) -> str:
    """Returns the digests of the page's own inline scripts or styles, for the header.

    Browsers refuse all others, even if a class or file name got through unescaped.
    """
    texts = re.findall(rf"<{tag}>(.*?)</{tag}>", html(), flags=re.DOTALL)
    digests = [hashlib.sha256(text.encode()).digest() for text in texts]
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


NO_SNIFF = {"X-Content-Type-Options": "nosniff"}
HEADERS = {
    **NO_SNIFF,
    "Content-Security-Policy": (
        f"default-src 'none'; script-src {_sources('script')}; style-src {_sources('style')}; "
        "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
