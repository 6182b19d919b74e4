# SPDX-License-Identifier: BSD-3-Clause
"""Machines of a network: Linux namespaces, each with an address of its own, joined by a bridge.

A machine has a network of its own. Each program that is started on one has also processes and a
folder /tmp/ray of its own, as Ray has there what belongs to a machine; it shares all other files
with this one. All of it needs root.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence

_SWITCH = "switch"
_PREFIX = "10.99.87"


class Network:
    """Machines that are joined by a bridge; made by `network`.

    Attributes:
        addresses: IP address by name of the machine.
    """

    def __init__(self, names: Sequence[str]):
        self.addresses = {name: f"{_PREFIX}.{i}" for i, name in enumerate(names, 1)}
        self._spaces = {name: f"ml{os.getpid()}-{name}" for name in (*names, _SWITCH)}

    def make(self) -> None:
        for space in self._spaces.values():
            _ip("netns", "add", space)
            _ip("-n", space, "link", "set", "lo", "up")
        switch = self._spaces[_SWITCH]
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for name, address in self.addresses.items():
            space = self._spaces[name]
            cable = ("type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("-n", switch, "link", "add", "name", name, *cable)
            _ip("-n", switch, "link", "set", "dev", name, "master", "bridge", "up")
            _ip("-n", space, "address", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", "up")
            # Programs find out their address by a route to the world, which is not there.
            _ip("-n", space, "route", "add", "default", "via", f"{_PREFIX}.254")

    def start(
        self, name: str, command: Sequence[str], *, environment: Mapping[str, str] = {}, **options
    ) -> subprocess.Popen:
        """Starts a command on a machine; `kill` ends it with all that it has started there."""
        own = 'mkdir -p /tmp/ray && mount -t tmpfs tmpfs /tmp/ray && exec "$@"'
        apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        inside = ["ip", "netns", "exec", self._spaces[name], *apart, "sh", "-c", own, "sh"]
        proxies = ("http_proxy", "https_proxy", "all_proxy")
        kept = {key: value for key, value in os.environ.items() if key.lower() not in proxies}
        return subprocess.Popen([*inside, *command], env=kept | environment, **options)

    def output(self, name: str, command: Sequence[str]) -> str:
        """Runs a command on a machine; returns what it prints."""
        process = self.start(name, command, stdout=subprocess.PIPE, text=True)
        return process.communicate(timeout=60)[0]

    def unplug(self, name: str) -> None:
        """Cuts a machine off, without its noticing by itself."""
        _ip("-n", self._spaces[_SWITCH], "link", "set", "dev", name, "down")

    def remove(self) -> None:
        for space in self._spaces.values():
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "del", space)


@contextlib.contextmanager
def network(*names: str) -> Iterator[Network]:
    """Makes machines until the block ends."""
    made = Network(names)
    try:
        made.make()
        yield made
    finally:
        made.remove()


def why_not() -> str | None:
    """Returns why there can be no such network here; None if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program in ("ip", "unshare"):
        if shutil.which(program) is None:
            return f"there is no program `{program}`"
    try:
        with network("probe") as probe, tempfile.TemporaryFile() as errors:
            if probe.start("probe", ["true"], stderr=errors).wait(timeout=30):
                errors.seek(0)
                return f"no namespaces for processes: {errors.read().decode()}"
    except subprocess.CalledProcessError as error:
        return f"no network namespaces: {error.stderr}"
    return None


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
