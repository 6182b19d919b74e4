# SPDX-License-Identifier: BSD-3-Clause
"""Uploads files to a repository of the Hub, as one commit, and verifies what arrived."""

from collections.abc import Mapping
from pathlib import Path

from mlimages_jax.checkpoints.hub import FILE, Address, explained, library
from mlimages_jax.files.checksums import sha256
from mlimages_jax.sharing import SharingError


def upload(repo: str, files: Mapping[str, Path], *, private: bool, message: str) -> Address:
    """Creates a repository unless it exists, and adds a commit to it.

    Large files are sent first, and the Hub knows them by their SHA-256: after an interruption the
    same call sends only those that are missing. Nobody sees any of them before the commit.

    Args:
        repo: `user/name`.
        files: Files on this machine by their name in the repository; one of them is FILE.
        private: Whether a new repository is private; one that exists stays as it is.
        message: Message of the commit.

    Returns:
        The address of the commit.

    Raises:
        HubError: The Hub cannot be reached, or refuses.
        SharingError: Nobody is logged in, or the Hub has other bytes than were sent.
    """
    hub = library()
    if hub.get_token() is None:
        raise SharingError(
            "nobody is logged in: run `hf auth login` with a token that may write, or set HF_TOKEN"
        )
    api = hub.HfApi(library_name="mlimages-jax")
    with explained(Address(repo)):
        # None, not False: an organization may create private repositories by default.
        api.create_repo(repo, private=private or None, exist_ok=True)
        additions = [
            hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=path)
            for name, path in files.items()
        ]
        commit = api.create_commit(repo, additions, commit_message=message)
        (arrived,) = api.get_paths_info(repo, [FILE], revision=commit.oid)
    reported = arrived.lfs.sha256 if arrived.lfs else ""
    if reported != sha256(files[FILE]):
        raise SharingError(
            f"hf://{repo}@{commit.oid}: the Hub reports another SHA-256 of {FILE} than that of "
            f"{files[FILE]}: run the same command again"
        )
    return Address(repo, commit.oid)
