"""A libvirtd of our own, with only libvirt's test driver in it: no users, no network, nothing of the system's.

It lives in a temporary directory and is ended by its process id.  In the benchmark's own process."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

WHERE = ":/usr/sbin:/usr/local/sbin"
UP_WITHIN = 10.0
"""Seconds."""


class NoLibvirtd(Exception):
    """It is not installed, or does not start; says which."""


@contextlib.contextmanager
def private_libvirtd() -> Iterator[str]:
    """The URI of its test driver, over its unix socket.  The socket's path must fit 108 bytes (unix(7)): in /tmp."""
    program = shutil.which("libvirtd") or shutil.which("libvirtd", path=WHERE)
    if program is None:
        raise NoLibvirtd("libvirtd is not installed: apt-get install libvirt-daemon")
    with tempfile.TemporaryDirectory(prefix="eventbridge-bench-") as name:
        home = Path(name)
        (home / "drivers").mkdir()
        (home / "conf").write_text(
            f'unix_sock_dir="{home}"\nunix_sock_rw_perms="0700"\nauth_unix_ro="none"\nauth_unix_rw="none"\nlisten_tls=0\n'
        )
        daemon = subprocess.Popen(
            [program, "-f", home / "conf", "-p", home / "pid"],
            env={"LIBVIRT_DRIVER_DIR": str(home / "drivers"), "PATH": WHERE[1:]},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # an interrupt is for the benchmark, which ends it in its own time
        )
        try:
            _wait_for(home / "libvirt-sock", daemon)
            yield f"test+unix:///default?socket={home / 'libvirt-sock'}"
        finally:
            daemon.terminate()
            daemon.communicate()


def _wait_for(socket: Path, daemon: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + UP_WITHIN
    while not socket.exists():
        if daemon.poll() is not None:
            said = daemon.communicate()[1].decode(errors="replace").strip().splitlines()
            raise NoLibvirtd(f"libvirtd does not start: {said[-1] if said else f'exit code {daemon.returncode}'}")
        if time.monotonic() > until:
            raise NoLibvirtd(f"libvirtd has no socket after {UP_WITHIN:g} s")
        time.sleep(0.01)
