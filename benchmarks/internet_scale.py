# SPDX-License-Identifier: BSD-3-Clause
"""Question: where would the time of a billion URLs on 200 workers go, and what breaks first?

A model, not a measurement: see peers/crawl_model.py for its rules. `plan` evaluates it for a list
of the web, or for the URLs of ML-Images, and varies one setting at a time. `check` downloads lists
from a server on this machine, each limited by something else, and `rows` lets a download of
generated URLs run without any socket; both print what the same model predicts for them. Its two
constants, the seconds that a URL costs a worker and those of a start, come from two shorter
downloads in the same run.

    python benchmarks/internet_scale.py plan
    python benchmarks/internet_scale.py plan --list ml-images --workers 10
    python benchmarks/internet_scale.py check --urls 10000
    python benchmarks/internet_scale.py rows --rows 1000000

What is assumed about the web, and why:

- Hosts follow Zipf's law. Of 12 million image URLs of LAION's aesthetic subset 8.5% were on one
  host and 47% on a hundred (waxy.org, August 2022); exponent 1.05 with 20 million hosts has 8.4%
  and 39%. The 100 published example rows of ML-Images are on 16 hosts of Flickr, the most frequent
  with 10.
- An answer takes 0.4 s from a free connection to the last byte. 13% of the URLs are answered with
  an error, and one host in 50, by rank, never answers: 15% lost in all. Of LAION-400M 13% were lost
  after a year (rom1504/img2dataset, issue 277) and 32% after two and a half (issue 400).
- A worker is this machine: 769 images of 100 kB a second (docs/benchmarks/data_preparation.md).
"""

import argparse
import dataclasses
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from download import BENCHMARKS, faulty_hosts, ours, print_row, print_table_head
from peers import crawl_check, crawl_plan
from peers.command import Command
from peers.crawl_check import Case
from peers.crawl_model import BOUNDS, Outcome
from peers.crawl_plan import DAY, FOREVER, HOUR, Plan, Planned

INDEX_BYTES = 24  # of memory for a committed row when a part is resumed: image_shards/index.py
MANIFEST_BYTES = 70  # a row of a manifest without licence and author: rehearsal.py
COMPARED = ("limit", "URLs", "predicted, s", "measured, s", "error", "bounds, s")
PAGE = 1000  # objects that one request lists, in both stores
MANY_DEATHS = 3  # of workers that tried the same part; at so many early ones the engine gives up


Change: TypeAlias = dict[str, Any]  # fields of `Plan` and their new values


def report(plan: Plan, planned: Planned) -> None:
    """Prints where the time goes, and the sizes of what grows."""
    parts, outcome = planned.parts, planned.outcome
    stored = float(parts.stored.sum())
    done = np.array(outcome.ends)
    print_table_head("what", "value")
    print_row("in all", duration(outcome.seconds))
    for share in (0.5, 0.9, 0.99):
        at = done[int(np.ceil(share * len(done))) - 1]
        print_row(f"{share:.0%} of the parts are done after", duration(float(at)))
    print_row("workers occupied", f"{outcome.utilisation(plan.workers):.1%}")
    print_row("workers that died, work lost by them",
              f"{outcome.deaths.total():,}, {outcome.lost / outcome.busy:.2%}")  # fmt: skip
    print_row(f"parts that lost {MANY_DEATHS} workers or more", with_many_deaths(outcome))
    print_row("driver occupied", f"{outcome.driver / outcome.seconds:.2%}")
    for index, name in enumerate(BOUNDS):
        bound = parts.bounds[name]
        print_row(
            f"limit `{name}`: parts, largest, sum over workers",
            f"{int((parts.binding == index).sum()):,}, {duration(float(bound.max()))}, "
            f"{duration(float(bound.sum()) / plan.workers)}",
        )
    print_row("images stored, TB", f"{stored:,.0f}, {stored * plan.image_bytes / 1e12:,.1f}")
    print_row(
        "shards and manifests", f"{planned.shards:,}; {stored / planned.shards:,.0f} images each"
    )
    manifests = f"{plan.urls * MANIFEST_BYTES / 1e9:,.1f}; {-(-planned.shards // PAGE):,}"
    print_row("manifests, GB; requests to list them", manifests)
    largest = int(parts.urls.max())
    print_row("URLs of the largest host, of the largest part",
              f"{planned.largest_host:,}, {largest:,}")  # fmt: skip
    print_row("memory to resume the largest part, MB", f"{largest * INDEX_BYTES / 1e6:,.0f}")


def with_many_deaths(outcome: Outcome) -> int:
    """Counts the parts that lost many workers."""
    return sum(deaths >= MANY_DEATHS for deaths in outcome.deaths.values())


def vary(plan: Plan) -> None:
    """Prints the time with one setting changed at a time."""
    mended: Change = {"give_up_after": 50, "scan_seconds": 0, "longest_first": True}
    changes: list[Change] = [{}, *({name: value} for name, value in mended.items())]
    changes += [mended, *(mended | {"per_host": count} for count in (64, 256))]
    changes += [mended | {"workers": plan.workers * n // 2} for n in (1, 4)]
    changes += [mended | {"parts": int(plan.parts * factor)} for factor in (0.1, 10)]
    changes += [mended | {"lifetime": value} for value in (2 * HOUR, FOREVER)]
    changes += [mended | {"exponent": value} for value in (0.8, 0.95)]
    print_table_head(
        "changed",
        "in all",
        "9 of 10 parts",
        "workers occupied",
        "decided by",
        f"parts that lost {MANY_DEATHS} workers",
    )
    for change in changes:
        varied = dataclasses.replace(plan, **change)
        planned = crawl_plan.evaluate(varied)
        parts, ends = planned.parts, planned.outcome.ends
        longest = BOUNDS[parts.binding[int(np.argmax(parts.seconds))]]
        print_row(
            named(change, mended),
            duration(planned.outcome.seconds), duration(ends[len(ends) * 9 // 10]),
            f"{planned.outcome.utilisation(varied.workers):.1%}", longest,
            with_many_deaths(planned.outcome),
        )  # fmt: skip


def named(change: Change, mended: Change) -> str:
    """Describes changed settings; those of `mended` together are called `all three`."""
    together = change.keys() > mended.keys() or change == mended
    shown = {name: value for name, value in change.items() if not (together and name in mended)}
    words = [f"{name}={value:g}" for name, value in shown.items()]
    return ", ".join(["all three"] * together + words) or "nothing"


def duration(seconds: float) -> str:
    """Formats seconds in a unit that suits them."""
    for unit, length in (("days", DAY), ("h", HOUR), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:,.1f} s"


def plan_command(arguments: argparse.Namespace) -> None:
    """Evaluates the model and varies its settings."""
    given = {
        field.name: value
        for field in dataclasses.fields(Plan)
        if (value := getattr(arguments, field.name)) is not None
    }
    plan = dataclasses.replace(crawl_plan.LISTS[arguments.list], **given)
    print(f"{plan.urls:,} URLs of {plan.hosts:,} hosts, {plan.parts:,} parts, "
          f"{plan.workers:,} workers: a model, not a measurement\n")  # fmt: skip
    report(plan, crawl_plan.evaluate(plan))
    if arguments.vary:
        print()
        vary(plan)


def check(arguments: argparse.Namespace) -> None:
    """Downloads lists that are limited by different things, beside the model's prediction."""
    urls = arguments.urls
    sizes = max(urls // 10, 200), max(urls // 3, 1000)
    fits, found = [crawl_check.good(count) for count in sizes], cases(urls)
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        rounds = [
            [measured(case, Path(folder)) for case in (*fits, *found)]
            for _ in range(arguments.rounds)
        ]
    seconds = [statistics.median(column) for column in zip(*rounds, strict=True)]
    row_seconds, start = fitted(sizes, seconds[:2])
    print_table_head(*COMPARED)
    for case, taken in zip(found, seconds[2:], strict=True):
        predicted, bounds = case.predicted(row_seconds=row_seconds, start_seconds=start)
        print_comparison(case.name, len(case.urls), predicted, taken, bounds)


def fitted(sizes: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """Prints and returns the seconds of a row and of a start, from the first two sizes."""
    row_seconds = (seconds[1] - seconds[0]) / (sizes[1] - sizes[0])
    start = max(0.0, seconds[0] - row_seconds * sizes[0])
    print(
        f"{row_seconds * 1e3:.3f} ms a URL and {start:.1f} s for a start, from {sizes[0]:,} and "
        f"{sizes[1]:,} URLs; load {os.getloadavg()[0]:.1f}\n"
    )
    return row_seconds, start


def cases(urls: int) -> list[Case]:
    """Returns the downloads of `check`; the slower ones are shorter."""
    return [
        crawl_check.good(urls), crawl_check.late(urls // 4), crawl_check.skewed(urls // 4),
        crawl_check.faulty(urls), crawl_check.many_workers(urls),
    ]  # fmt: skip


def measured(case: Case, work: Path) -> float:
    """Downloads a list in a process of its own; returns its seconds."""
    path = work / "urls.txt"
    path.write_text("".join(f"{url}\n" for url in case.urls), encoding="utf-8")
    limits = ["--connections", str(case.connections), "--connections-per-host", str(case.per_host)]
    if case.parts:
        limits += ["--shards", str(case.parts), "--workers", str(case.workers)]
    with faulty_hosts() as (_, options), tempfile.TemporaryDirectory(dir=work) as output:
        command = ours(path, Path(output), *options, *limits)
        with Command(command, folder=BENCHMARKS) as running:
            return running.finish().seconds


def print_comparison(
    name: str, rows: int, predicted: float, found: float, bounds: dict[str, float]
) -> None:
    """Prints a row of the table of predictions."""
    shown = ", ".join(f"{key} {value:.1f}" for key, value in bounds.items() if value)
    print_row(name, f"{rows:,}", f"{predicted:.1f}", f"{found:.1f}",
              f"{predicted / found - 1:+.0%}", shown)  # fmt: skip


def rows_command(arguments: argparse.Namespace) -> None:
    """Runs downloads without sockets: the cost of a row in list, queues and record."""
    sizes = arguments.rows // 20, arguments.rows // 5, arguments.rows
    rounds: list[list[float]] = []
    for _ in range(arguments.rounds):
        rounds.append([])
        for count in sizes:
            with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
                rounds[-1].append(crawl_check.seconds_without_sockets(count, Path(folder)))
    found = [statistics.median(column) for column in zip(*rounds, strict=True)]
    row_seconds, start = fitted(sizes, found)
    print_table_head(*COMPARED)
    bound = row_seconds * sizes[2]
    print_comparison("no sockets", sizes[2], start + bound, found[2], {"worker": bound})


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, help="a folder for downloads; default: temporary")
    commands = parser.add_subparsers(required=True)
    _add_plan(commands.add_parser("plan", help="evaluate the model"))
    runs: Sequence[tuple[str, str, int, Callable]] = (
        ("check", "--urls", 10_000, check),
        ("rows", "--rows", 1_000_000, rows_command),
    )
    for name, option, count, run in runs:
        command = commands.add_parser(name, help=(run.__doc__ or "").rstrip("."))
        command.set_defaults(run=run)
        command.add_argument(option, type=int, default=count)
        command.add_argument("--rounds", type=int, default=1, help="of which medians are taken")
    return parser.parse_args()


def _add_plan(parser: argparse.ArgumentParser) -> None:
    """Adds an option for each field of `Plan`."""
    parser.set_defaults(run=plan_command)
    parser.add_argument("--list", choices=list(crawl_plan.LISTS), default="web")
    parser.add_argument("--vary", action=argparse.BooleanOptionalAction, default=True)
    for field in dataclasses.fields(Plan):
        option = f"--{field.name.replace('_', '-')}"
        if isinstance(field.default, bool):
            parser.add_argument(option, action=argparse.BooleanOptionalAction)
        else:
            parser.add_argument(option, type=type(field.default))


def main() -> None:
    """Runs one of the commands."""
    arguments = parse_arguments()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
