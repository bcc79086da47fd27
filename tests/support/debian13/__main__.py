"""Run the tests on a clean Debian 13: ``python3 -m tests.support.debian13 [PYTEST OPTIONS]``, as root.

debootstrap makes a system of its own in the cache (tests/support/cache.py) with this machine's mirror, and a copy of
the checkout is tested in there as a stranger would: by ``make test``, which installs what it needs.  The system is
kept for the next run, packages and virtual environment with it, until an input of it changes.

The tests run in namespaces of their own for mounts and processes.  However this ends, the kernel then ends every
process in them and takes down every mount: nothing is left to clean up.  Only the standard library is needed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support import cache, debian
from tests.support.debian13 import settings

RELEASE = 13
HERE = Path(__file__).parent
CHECKOUT = HERE.parents[2]
PROJECT = "srv/eventbridge"
"""Where the copy of the checkout lies in the new system."""

INCLUDE = "ca-certificates,make,python3"
"""What a stranger has on top of debootstrap's least: all else is installed by ``make test`` itself."""

_NAME = f"debian{RELEASE}-"
_INPUTS = (CHECKOUT / "tests/support/setup.sh", CHECKOUT / "setup.cfg")
"""What decides which packages the tests install: none may be left of another list of them."""

FAILED = 1
TERMINATED = 143


def main(options: Sequence[str]) -> int:
    if os.geteuid() != 0:
        return _say("a chroot is made and mounted into, which only root may do: sudo make test-debian13")
    signal.signal(signal.SIGTERM, _terminated)
    try:
        return _test(options)
    except (debian.NoSources, _Failed) as error:
        return _say(str(error))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


class _Failed(Exception):
    """A step failed; one line that says which."""


def _test(options: Sequence[str]) -> int:
    sources = debian.sources(RELEASE)
    name = f"{_NAME}{_key(sources)}"
    with _alone(name):
        _forget_others(name)
        root = cache.once(name, lambda place: _bootstrap(sources, place))
        settings.apt(root, sources)
        binds = settings.pip(root)
        settings.network(root)
        _copy_checkout(root / PROJECT)
        return _run(root, binds, options)


def _key(sources: Sequence[debian.Source]) -> str:
    digest = hashlib.sha256(f"{INCLUDE} {sources}".encode())
    for path in _INPUTS:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:10]


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """One run in one system at a time: the others wait."""
    with cache.locked_if_free(f"{name}-run") as free:
        if free:
            yield
            return
    _say("waiting for another run, which is in that system")
    with cache.locked(f"{name}-run"):
        yield


def _forget_others(name: str) -> None:
    """Remove the systems that other inputs made, except those in which tests are running."""
    for old in cache.directory().glob(f"{_NAME}{'[0-9a-f]' * 10}"):
        if old.name != name:
            with cache.locked_if_free(f"{old.name}-run") as free:
                if free:
                    shutil.rmtree(old, ignore_errors=True)


def _bootstrap(sources: Sequence[debian.Source], place: Path) -> None:
    if shutil.which("debootstrap") is None:
        _must("installing debootstrap", "apt-get", "-qq", "update")
        _must("installing debootstrap", "apt-get", "-qq", "install", "-y", "--no-install-recommends", "debootstrap")
    keyring = [f"--keyring={debian.KEYRING}"] if debian.KEYRING.exists() else []
    suite, uri = sources[0].suite, sources[0].uri
    _must(
        f"making a Debian {RELEASE} in {cache.directory()} (a minute)",
        *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
        *("debootstrap", "--variant=minbase", f"--include={INCLUDE}", *keyring, suite, str(place), uri),
        environment={**os.environ, **settings.proxies()},
    )


def _must(what: str, *command: str, environment: dict[str, str] | None = None) -> None:
    """Run it; what it says is shown if it fails."""
    print(f"debian13: {what}", file=sys.stderr, flush=True)
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        sys.stderr.write(done.stdout.decode(errors="replace")[-4000:])
        raise _Failed(f"{what}: {command[0]} failed with exit status {done.returncode}")


def _copy_checkout(target: Path) -> None:
    """What git has or would take, as it is now; the virtual environment of an earlier run stays beside it."""
    if shutil.which("git") is None:
        raise _Failed("git, which lists the checkout's files, is not installed: apt-get install -y git")
    git = ["git", "-C", str(CHECKOUT), "-c", f"safe.directory={CHECKOUT}", "ls-files", "-z"]
    done = subprocess.run([*git, "--cached", "--others", "--exclude-standard"], capture_output=True, check=False)
    if done.returncode:
        raise _Failed(f"git does not list the checkout's files: {done.stderr.decode().strip()}")
    target.mkdir(parents=True, exist_ok=True)
    for old in target.iterdir():
        if old.name != ".venv":
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
    for name in filter(None, os.fsdecode(done.stdout).split("\0")):
        if os.path.lexists(CHECKOUT / name):  # what git has and was removed here is left out
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, target / name, follow_symlinks=False)


def _run(root: Path, binds: Sequence[str], options: Sequence[str]) -> int:
    """``make test`` in there; its exit status.

    SIGINT reaches it from the terminal, by itself.  Once this ends, so does everything in the namespaces, as the
    first process in them is killed."""
    make = ["make", "-C", f"/{PROJECT}", "test"]
    if options:
        make.append("ARGS=" + shlex.join(options).replace("$", "$$"))
    namespaces = ["unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child"]
    command = [*namespaces, "bash", str(HERE / "inside.sh"), str(root), *binds, "--", *make]
    process = subprocess.Popen(command, env=settings.environment(), preexec_fn=_default_sigint)
    try:
        while True:
            with contextlib.suppress(KeyboardInterrupt):  # pytest has it too, and ends: so its summary is seen
                return process.wait()
    finally:
        process.kill()
        process.wait()


def _default_sigint() -> None:
    """The tests send it to themselves; a shell has what it runs in the background ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _say(what: str) -> int:
    print(f"debian13: {what}", file=sys.stderr, flush=True)
    return FAILED


def _terminated(number: int, frame: object) -> None:
    raise SystemExit(TERMINATED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
