# SPDX-License-Identifier: BSD-3-Clause
"""Models on the Hugging Face Hub, by addresses `hf://user/name@revision`.

Of a repository only the file FILE is fetched, through the cache of huggingface_hub, and compared
with the digest that the Hub reports for it. It holds arrays and text: nothing in it is executed.
"""

import contextlib
import hashlib
import importlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging
from etils import epath

from mlimages_jax.distributed import collectives

SCHEME = "hf://"
FILE = "model.safetensors"
_FORM = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", re.ASCII)
_SHA1, _SHA256 = 40, 64  # digits of a digest


class HubError(Exception):
    """The Hub, or its cache, has no such model for this user; the message says what to do next."""


class Address(NamedTuple):
    """A version of a model.

    Attributes:
        repo: `user/name`.
        revision: A branch, a tag or the id of a commit.
    """

    repo: str
    revision: str = "main"

    def __str__(self) -> str:
        return f"{SCHEME}{self.repo}@{self.revision}"


def is_address(path: epath.PathLike) -> bool:
    """Tells whether a path is the address of a model on the Hub."""
    return os.fspath(path).startswith(SCHEME)


def parse(text: epath.PathLike) -> Address:
    """Reads `hf://user/name` or `hf://user/name@revision`.

    Raises:
        HubError: The text has another form.
    """
    match = _FORM.fullmatch(os.fspath(text))
    if not match:
        raise HubError(f"{os.fspath(text)}: an address of the Hub is hf://user/name@revision")
    return Address(match[1], match[2] or "main")


def library() -> Any:
    """Imports huggingface_hub, which only users of the Hub need.

    Raises:
        HubError: It is not installed.
    """
    try:
        importlib.import_module("huggingface_hub.errors")  # becomes an attribute of the next
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise HubError(
            f"the Hub needs huggingface_hub ({error}): pip install 'mlimages-jax[hub]'"
        ) from error


def download(address: Address) -> tuple[Path, Address]:
    """Fetches a model, unless the cache has it; a connection that breaks is resumed.

    Returns:
        The file in the cache, and the address with the id of the commit.

    Raises:
        HubError: There is no such model for this user, it cannot be reached, or the file is not
            the one that the Hub reports.
    """
    with explained(address):
        path = Path(library().hf_hub_download(address.repo, FILE, revision=address.revision))
    pinned = address._replace(revision=path.parent.name)  # snapshots/COMMIT/FILE
    _verify(path, pinned)
    logging.info("%s: %s", pinned, path)
    return path, pinned


def download_for_all(path: epath.PathLike) -> tuple[Path, Address]:
    """Downloads a model on all processes, of the commit that process 0 finds.

    Raises:
        HubError: As for `download`, on all processes if one of them fails.
    """
    address = parse(path)
    found, problem = None, ""
    if collectives.process_number() == 0:
        found, problem = _attempt(address)
    revision = collectives.of_process_0(found[1].revision if found else "")
    if found is None and revision:
        found, problem = _attempt(address._replace(revision=revision))
    for text in filter(None, [problem, *collectives.exchanged(problem)]):
        raise HubError(text)
    assert found
    return found


@contextlib.contextmanager
def explained(address: Address) -> Iterator[None]:
    """Turns errors of huggingface_hub into a `HubError` of one line.

    Args:
        address: What was asked for.
    """
    errors = library().errors
    name = f"{SCHEME}{address.repo}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise HubError(
            f"{name} asks its users to accept conditions: do so on its page, then log in with "
            "`hf auth login` or HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise HubError(
            f"{name} does not exist, or is private: check the name, and log in with "
            "`hf auth login` or HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise HubError(
            f"{name} has no revision {address.revision}: give a branch, a tag or a commit of it, "
            f"or {name} for the newest"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise HubError(
            f"{address} is not in the cache and cannot be fetched (offline, or HF_HUB_OFFLINE is "
            "set): fetch it once with a connection, or copy the cache (HF_HOME)"
        ) from error
    except errors.EntryNotFoundError as error:
        raise HubError(f"{address} has no {FILE}: it was not written by `mlimages push`") from error
    except Exception as error:  # of the Hub, its transfers and the cache: they share no type
        if not _is_of_the_hub(error, errors):
            raise
        raise HubError(f"{address}: {_advice(error)}") from error


def _attempt(address: Address) -> tuple[tuple[Path, Address] | None, str]:
    try:
        return download(address), ""
    except HubError as error:
        return None, str(error)


def _verify(path: Path, address: Address) -> None:
    """Compares a cached file with the digest that the Hub reported.

    The cache names a file by it: the SHA-256 of a large file, git's SHA-1 of a small one. Where
    links are not possible there is no such name; the checksums in the file are verified anyway.
    """
    if not path.is_symlink():
        return
    reported = path.readlink().name  # not resolved: the cache may link further
    if len(reported) == _SHA256:
        digest = hashlib.sha256()
    elif len(reported) == _SHA1:
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    else:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: digest).hexdigest()
    if found != reported:
        path.resolve().unlink()
        path.unlink()
        raise HubError(
            f"{address}: {FILE} is not the file that the Hub reports (digest {found[:12]}... "
            f"instead of {reported[:12]}...); it was removed from the cache: run this again"
        )


def _is_of_the_hub(error: Exception, errors: Any) -> bool:
    kinds = (errors.HfHubHTTPError, errors.HFValidationError, OSError)
    module = type(error).__module__.partition(".")[0]
    return isinstance(error, kinds) or module in ("httpx", "httpx2", "httpcore", "httpcore2")


def _advice(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if status in (401, 403):
        return f"{line}: log in with `hf auth login` or HF_TOKEN, as a user who may do this"
    if status:
        return f"{line}: run this again later"
    return f"{type(error).__name__}: {line}: check the connection and HF_ENDPOINT"
