# SPDX-License-Identifier: BSD-3-Clause
"""The command `download`: fetches and verifies the images of URL lists, and can resume."""

import collections
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import OmitArgPrefixes, Positional

import mlimages_jax
from mlimages_jax.command_line import optional
from mlimages_jax.engines.options import EngineOptions
from mlimages_jax.files.object_folder import ObjectFolder
from mlimages_jax.files.remote import is_remote
from mlimages_jax.image_shards.outcome import OK
from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.download.addresses import AddressMap
from mlimages_jax.prepare.download.engine import Patience
from mlimages_jax.prepare.download.fetch import Fetcher, Limits
from mlimages_jax.prepare.download.image_sources import SourceName
from mlimages_jax.prepare.download.job import DownloadJob
from mlimages_jax.prepare.download.plan import DownloadPlan
from mlimages_jax.prepare.manifest import Manifest
from mlimages_jax.prepare.url_lists import UrlPart

_LOCAL = EngineOptions()


def download(
    lists: Positional[list[Path]],
    /,
    *,
    output: str,
    shard: str = "0/1",
    shards: Annotated[int | None, optional("INT")] = None,
    workers: OmitArgPrefixes[EngineOptions] = _LOCAL,
    short_side: int | None = None,
    retry_failed: tuple[str, ...] = (),
    retries: int = 2,
    timeout: float = 30.0,
    connections: int = 128,
    connections_per_host: int = 16,
    max_bytes: int = 50_000_000,
    max_redirects: int = 5,
    max_copies: int = 10,
    max_wait: float = 60.0,
    give_up_after: int = 1000,
    host_give_up_after: int = 50,
    open_images_table: tuple[Path, ...] = (),
    sources: tuple[SourceName, ...] = ("thumbnail", "mirror", "original", "list"),
    user_agent: str = f"mlimages_jax/{mlimages_jax.__version__}",
    proxy: str | None = None,
    address_map: tuple[str, ...] = (),
    allow_private: bool = False,
    ignore_robots_tag: bool = False,
) -> None:
    r"""Download the images of URL lists, many at a time, and record the outcome of each.

    A list has one URL per line; labels may follow it and are ignored here:

        mlimages data download train_urls.txt --output ml_images

    Every image is verified (it decodes to its end and is not a "photo not available" placeholder)
    before it appears as OUTPUT/images/<host>/<nn>/<name>. OUTPUT/manifest.sqlite records the
    outcome of every URL. Stop the download at any time: the same command resumes and fetches
    nothing twice. Many URLs of ML-Images are dead; that is normal and not an error. `coverage`
    reports what is present, what is missing and why, and `labels --manifests` writes the list of
    the images present, for the builder.

    With --shards N the images go into image shards instead: files of some 4,096 images with a
    Parquet manifest each, on a disk or in a bucket. The URLs are divided into N parts by their
    host, so no host is ever asked by two workers:

        mlimages data download train_urls.txt --output gs://bucket/ml_images --shards 64 \
            --workers 4

    With Open Images' table of images (--open-images-table) most images have better sources than
    the URL of the list: a thumbnail of 300,000 pixels, a mirror, and the original with its MD5.
    Licence, author and rotation go into the manifest.

    Args:
        lists: files with a URL in the first column.
        output: folder for images/ and manifest.sqlite; created if missing. With --shards it may be
            in a bucket: gs://bucket/name or s3://bucket/name.
        shard: i/n downloads part i (0 to n - 1) of the URLs, with a manifest of its own; run the n
            parts on n machines, into one folder or several.
        shards: write image shards, in this many parts; several for each worker, so that a host with
            many images does not keep all others waiting. The limits below are those of a worker.
        workers: who fetches the parts.
        short_side: shrink larger images to this short side, in pixels, as they arrive.
        retry_failed: also retry images that failed in earlier runs with these errors, such as
            "timeout http_503"; "all" for any.
        retries: further attempts after a temporary failure (time-outs, resets, 429, 5xx).
        timeout: seconds to connect, and seconds without a byte of the response.
        connections: maximum number of open connections.
        connections_per_host: maximum number of connections to one host.
        max_bytes: maximum size of a file.
        max_redirects: maximum number of redirects in a row.
        max_copies: the same bytes under this many URLs are a placeholder; 0 turns this off.
        max_wait: longest pause of a host, in seconds. An image whose server asks for a longer one
            fails, with the status as its error, such as http_429, for --retry-failed.
        give_up_after: stop after this many attempts in a row without any answer: the network is
            down. 0: never stop, for a list whose hosts are mostly gone.
        host_give_up_after: images of a host fail untried, as silent_host, after this many attempts
            at it in a row without any answer, if others answered meanwhile. 0: try all of them.
        open_images_table: Open Images' CSV files of image URLs; they are indexed once.
        sources: which sources to try, in this order, for images of that table.
        user_agent: identifies you to servers; add an address at which you can be reached.
        proxy: URL of an HTTP proxy; it resolves the names, so it must refuse private addresses.
        address_map: PATTERN=BASE sends requests for hosts that match PATTERN to BASE, such as
            "*.staticflickr.com=http://mirror:8080"; BASE may have a private address.
        allow_private: also fetch from private and loopback addresses.
        ignore_robots_tag: also fetch images whose owner opted out of data sets by an X-Robots-Tag
            of noai, noimageai, noindex, noimageindex or none.
    """
    try:
        part = UrlPart.parse(shard)
        maps = [AddressMap.parse(text) for text in address_map]
        fetcher = Fetcher(
            limits=Limits(timeout=timeout, max_bytes=max_bytes, max_redirects=max_redirects),
            connections=connections,
            user_agent=user_agent,
            proxy=proxy,
            maps=maps,
            allow_private=allow_private,
            ignore_robots_tag=ignore_robots_tag,
        )
    except ValueError as error:
        raise PrepareError(str(error)) from error
    plan = DownloadPlan(
        lists=lists,
        fetcher=fetcher,
        connections=connections,
        per_host=connections_per_host,
        patience=Patience(
            retries=retries,
            max_wait=max_wait,
            give_up_after=give_up_after,
            host_give_up_after=host_give_up_after,
        ),
        short_side=short_side,
        max_copies=max_copies,
        retry_failed=retry_failed,
        tables=open_images_table,
        order=sources,
    )
    if shards is not None and part.parts > 1:
        raise PrepareError("give either --shards, whose parts are those of all workers, or --shard")
    if shards is None and (workers.workers or workers.engine != _LOCAL.engine):
        raise PrepareError(
            "--workers and --engine divide image shards among workers: give --shards too, with "
            "several times as many parts as workers"
        )
    if shards is None:
        _into_files(plan, output, part)
    else:
        _into_shards(plan, output, shards, workers)


def _into_files(plan: DownloadPlan, output: str, part: UrlPart) -> None:
    if is_remote(output):
        raise PrepareError(f"{output}: files and their manifest need a disk; give --shards too")
    job = DownloadJob(plan=plan, output=Path(output), shard=part)
    try:
        job.run()
    finally:  # after Ctrl-C too, so that the user sees how far it got
        if job.manifest_path.is_file():
            print(summary(job.manifest_path))
    with Manifest(job.manifest_path, readonly=True) as manifest:
        if len(manifest) and not manifest.counts("status").get((OK,)):
            raise PrepareError("no image was downloaded; the table above says why")


def _into_shards(plan: DownloadPlan, output: str, parts: int, workers: EngineOptions) -> None:
    # Half a second that downloads into files need not wait.
    from mlimages_jax.image_shards.counts import count_outcomes
    from mlimages_jax.image_shards.reader import ShardFolder
    from mlimages_jax.prepare.download.shard_job import ShardJob

    if parts < 1:
        raise PrepareError(f"--shards {parts}: give a number of parts, such as 64")
    job = ShardJob(plan=plan, folder=ObjectFolder(output), parts=parts)
    with workers.open() as engine:
        job.run(engine)
    outcomes, received = count_outcomes(ShardFolder(output))
    print(_described(outcomes, received, output))
    if outcomes and not any(status == OK for status, _, _ in outcomes):
        raise PrepareError("no image was downloaded; the table above says why")


def summary(path: Path) -> str:
    """Summarises a manifest: images and bytes by source, failures by error."""
    with Manifest(path, readonly=True) as manifest:
        outcomes = manifest.counts("status", "source", "error")
        received = manifest.received()
    return _described(outcomes, received, path)


def _described(outcomes: Mapping[tuple[Any, ...], int], received: int, place: str | Path) -> str:
    there: collections.Counter[str] = collections.Counter()
    failed: collections.Counter[str] = collections.Counter()
    for (status, source, error), count in outcomes.items():
        if status == OK:
            there[source] += count
        else:
            failed[error] += count
    lines = [f"{there.total():>12,} images downloaded, {received / 1e6:,.1f} MB received"]
    lines += [f"{count:>12,}   from {source}" for source, count in there.most_common()]
    lines.append(f"{failed.total():>12,} not available")
    lines += [f"{count:>12,}   {error}" for error, count in failed.most_common()]
    return "\n".join([*lines, f"details of every URL: {place}"])
