# SPDX-License-Identifier: BSD-3-Clause
"""Sees that workers on other machines would write the same bytes for an image as this one.

Re-encoded images depend on the releases of some packages, and on whether the decoder of this
package was compiled there: without it there are no restart markers, for example.
"""

import dataclasses
import functools
import importlib.metadata
import socket
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from mlimages_jax.data.images import jpeg

Part = TypeVar("Part")
Result = TypeVar("Result")

_PACKAGES = ("array-record", "opencv-python-headless", "pillow", "simplejpeg")  # they write bytes
_DECODER = "the compiled decoder"


class OtherSoftwareError(RuntimeError):
    """A worker's machine would write other bytes; the message says what to install there."""


@functools.cache  # each takes a millisecond, as long as writing ten images
def releases() -> Mapping[str, str]:
    """Returns the releases of the packages that write the bytes, by their names."""
    return {name: importlib.metadata.version(name) for name in _PACKAGES}


def installed() -> dict[str, str]:
    """Returns what the bytes depend on, by its name."""
    return {**releases(), _DECODER: "built" if jpeg.is_compiled() else "not built"}


@dataclasses.dataclass(frozen=True)
class WithSameSoftware(Generic[Part, Result]):
    """A function of parts that refuses to work beside other software. May be pickled.

    Attributes:
        function: Does a part.
        expected: `installed()` on the machine where this was made.
    """

    function: Callable[[Part], Result]
    expected: Mapping[str, str] = dataclasses.field(default_factory=installed)

    def __call__(self, part: Part) -> Result:
        """Does a part.

        Raises:
            OtherSoftwareError: The software here is not the one expected.
        """
        here = installed()
        if here != self.expected:
            raise OtherSoftwareError(self._complaint(here))
        return self.function(part)

    def _complaint(self, here: Mapping[str, str]) -> str:
        others = "; ".join(
            f"{name}: {here[name]}, there {expected}"
            for name, expected in self.expected.items()
            if here[name] != expected
        )
        return (
            f"{socket.gethostname()} would write other bytes than the machine that the command was "
            f"started on ({others}): install the same versions on all of them. The decoder is "
            "compiled by the installation of this package if there are gcc and libjpeg-turbo's "
            "headers (libjpeg-dev)"
        )
