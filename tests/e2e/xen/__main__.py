"""The end-to-end tests on a real Xen: ``python -m tests.e2e.xen``, or ``make e2e-xen``.

It boots Debian's unmodified Xen hypervisor in QEMU, with the project inside domain 0 and beside it the real xenstored,
xenconsoled and libxl, and runs the tests of ``dom0/`` there: first Debian 12's Xen 4.17 with Python 3.11, then Debian
13's Xen 4.20 with Python 3.13, whatever this machine is.  Its exit code is the worse of theirs.  Packages and images
are kept in the cache (tests/support/cache.py); nothing is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from eventbridge.testing.patience import FACTOR
from tests.e2e.xen import images, layout, machine
from tests.e2e.xen.console import Console, Stage
from tests.support.apt import NotAvailable

TESTS = "tests/e2e/xen/dom0/*_in_dom0.py"
SLOWER = 2
"""An emulated processor is slower than this one: everything that waits inside has so many times as long."""
PYTEST = (
    f"EVENTBRIDGE_TEST_PATIENCE={SLOWER * FACTOR:g} "
    "python3 -m pytest -p no:cacheprovider -v --durations=0 --durations-min=1 -o addopts="
)
COLOUR = {True: "--color=yes", False: "--color=no"}  # domain 0's standard output is a terminal either way

# Program: Debian's package.
NEEDED = {"qemu-system-x86_64": "qemu-system-x86", "gcc": "gcc", "ld": "binutils", "as": "binutils"}

SILENCE = 300.0 * FACTOR
"""Seconds.  Longer than a test's own limit inside, which is `SLOWER` times that of pyproject.toml: one that hangs is
named by pytest there.  The longest quiet stretch of a healthy run is Linux's boot, 10 s on two idle cores."""

FAILED = 1
CALLED_WRONGLY = 2
INTERRUPTED = 130
TERMINATED = 143


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminated)
    try:
        missing = lacking()
        if missing:
            return _say(missing, FAILED)
        releases = [args.debian] if args.debian else sorted(layout.PYTHONS)
        return max([_boot(release, args) for release in releases])
    except KeyboardInterrupt:
        return _say("interrupted", INTERRUPTED)


def _boot(release: int, args: argparse.Namespace) -> int:
    _say(f"Debian {release}")
    try:
        return run(release, args.command or tests(args.options), args.silence)
    except (NotAvailable, images.NotBuilt, machine.WentSilent) as error:
        return _say(f"Debian {release}: {error}", FAILED)


def lacking() -> str | None:
    """What to install before it can run."""
    programs = [name for name in NEEDED if shutil.which(name) is None]
    if not programs:
        return None
    packages = sorted({NEEDED[name] for name in programs})
    return (
        f"{', '.join(programs)} {'is' if len(programs) == 1 else 'are'} not installed: "
        f"apt-get install -y --no-install-recommends {' '.join(packages)}"
    )


def tests(options: Sequence[str]) -> str:
    """The command for domain 0: all tests, and pytest's options."""
    return " ".join([PYTEST, COLOUR[sys.stdout.isatty()], *map(shlex.quote, options), TESTS])


def run(release: int, command: str, silence: float) -> int:
    """Boot, show what the command says, and how it went; its exit status."""
    directory = Path(tempfile.mkdtemp(prefix="e2e-xen-"))
    log = directory / "serial.log"
    result: int | None = None
    try:
        with _step("Xen, a kernel, domain 0's files"):
            made = images.images(release)
        with _step("the project"):
            images.overlay(made, command, directory / "project.cpio")
            disk = machine.memory_disk(made, directory / "project.cpio")
        console = Console()
        with machine.running(made, disk, log, silence) as lines:
            _follow(console, lines)
        result = console.result
        if console.trouble:
            _say(console.trouble)
    finally:
        _tidy(directory, log, keep=result != 0)
    return FAILED if result is None else result


def _follow(console: Console, lines: Iterator[bytes]) -> None:
    began = time.monotonic()
    for line in lines:
        before = console.stage
        text = console.line(line)
        if text is not None:
            print(text, flush=True)
        if console.stage is not before:
            _say(f"{console.stage.value}, {time.monotonic() - began:.1f} s after power-on")
        if console.stage in (Stage.BROKEN, Stage.ENDED):
            return
    console.end()


def _tidy(directory: Path, log: Path, keep: bool) -> None:
    """All but the serial console's log, which stays where something went wrong."""
    if keep and log.exists():
        for path in directory.iterdir():
            if path != log:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        _say(f"what the serial console said is in {log}")
    else:
        shutil.rmtree(directory)


@contextlib.contextmanager
def _step(what: str) -> Iterator[None]:
    began = time.monotonic()
    _say(f"preparing {what}")
    yield
    _say(f"prepared {what} in {time.monotonic() - began:.1f} s")


def _say(what: str, code: int = 0) -> int:
    print(f"e2e-xen: {what}", file=sys.stderr, flush=True)
    return code


def _terminated(number: int, frame: object) -> None:
    raise SystemExit(TERMINATED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.e2e.xen", description="Run the end-to-end tests on a real Xen, booted in QEMU."
    )
    parser.add_argument("options", nargs="*", metavar="OPTION", help="pytest's, after --, as in: -- -k console -x")
    parser.add_argument("--command", help="run this in domain 0 instead of the tests, as in --command 'xl info'")
    parser.add_argument(
        "--debian",
        type=int,
        choices=sorted(layout.PYTHONS),
        help="boot that release of Debian alone (default: each in turn, and exit with the worst status)",
    )
    parser.add_argument(
        "--silence",
        type=float,
        default=SILENCE,
        metavar="SECONDS",
        help="end the machine once it has printed nothing for so long (default: %(default)g); the whole has no limit",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
