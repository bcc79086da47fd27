"""Which of Debian's files domain 0 has, and where: the tables, and the copying.

Domain 0 lives in memory, so it gets what its programs need and no more: Xen's daemons and libxl, busybox, and Python
without what no test here imports.  Nothing is installed; nothing runs on this machine.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

LIBRARIES = "x86_64-linux-gnu"
PYTHON = "python3.11"

# {0} is Xen's version.
XEN_PACKAGES = """\
xen-hypervisor-{0}-amd64 xen-utils-{0} libxenmisc{0} xenstore-utils libxenstore4 libxentoolcore1 libxentoollog1
libxencall1 libxenevtchn1 libxenforeignmemory1 libxengnttab1 libxendevicemodel1 libxenhypfs1
libyajl2 liblzma5 libuuid1 libzstd1 zlib1g libc6 libgcc-s1 libtinfo6 libffi8 libexpat1 libbz2-1.0 busybox-static
python3.11-minimal libpython3.11-minimal libpython3.11-stdlib"""

DIRECTORIES = """\
proc sys dev tmp root e2e run/xen run/xenstored run/lock bin sbin etc/xen lib/modules usr/bin usr/sbin
var/lib/xen var/lib/xenstored var/log/xen/console"""

# xenconsoled, xenstored and libxl look for their own where Debian's build put it.
XEN_PROGRAMS = "xl xenstored xenconsoled xen-init-dom0 libxl-save-helper".split()
MODULES = "xen-privcmd xenfs xen-evtchn xen-gntdev xen-gntalloc".split()

WITHOUT = """\
test pydoc_data idlelib ensurepip lib2to3 xmlrpc wsgiref curses dbm sqlite3 distutils tkinter venv turtledemo
__pycache__ config-3.11-x86_64-linux-gnu lib-dynload/_codecs_* lib-dynload/_test* lib-dynload/_xxtest*
lib-dynload/_ssl.* lib-dynload/_hashlib.* lib-dynload/_sqlite3.* lib-dynload/_dbm.* lib-dynload/_curses*
lib-dynload/readline.*""".split()

FILES = {
    "etc/xen/xl.conf": 'autoballoon="off"\n',
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/hosts": "127.0.0.1 localhost\n",
}
LINKS = {
    "lib64": "usr/lib64",
    f"lib/{LIBRARIES}": f"../usr/lib/{LIBRARIES}",
    "var/run": "../run",
    "var/lock": "../run/lock",
    "usr/bin/python3": PYTHON,
}


class Missing(Exception):
    """A package has not what was looked for in it."""


def domain0(debs: Path, kernel_debs: Path, root: Path) -> None:
    """Fill ``root``, but for the project and its tests."""
    for directory in DIRECTORIES.split():
        (root / directory).mkdir(parents=True)
    for name, text in FILES.items():
        (root / name).write_text(text)
    for name, target in LINKS.items():
        (root / name).symlink_to(target)
    _copy(debs, "bin/busybox", root / "bin")
    _libraries(debs, root)
    _xen(debs, root)
    _python(debs, root)
    for module in MODULES:
        shutil.copy(one(kernel_debs, f"lib/modules/*/kernel/**/{module}.ko"), root / "lib/modules")


def one(debs: Path, pattern: str) -> Path:
    """The file that matches, in / or, as merged systems have it, in /usr."""
    found = [path for base in (debs, debs / "usr") for path in sorted(base.glob(pattern))]
    if not found:
        raise Missing(f"no {pattern} in {debs}: these packages are laid out otherwise than Debian 12's")
    return found[0]


def _libraries(debs: Path, root: Path) -> None:
    """All that these packages have: libgcc_s among them, which libxenstore's threads load by name when they end."""
    place = root / "usr/lib" / LIBRARIES
    place.mkdir(parents=True)
    for base in (debs / "lib" / LIBRARIES, debs / "usr/lib" / LIBRARIES):
        for library in base.glob("*.so*"):
            shutil.copy(library, place, follow_symlinks=False)
    loader = root / "usr/lib64/ld-linux-x86-64.so.2"
    loader.parent.mkdir()
    shutil.copy(one(debs, f"lib/{LIBRARIES}/{loader.name}"), loader)


def _xen(debs: Path, root: Path) -> None:
    own = one(debs, "lib/xen-*/bin").relative_to(debs)
    (root / own).mkdir(parents=True)
    for program in XEN_PROGRAMS:
        _copy(debs, str(own / program), root / own)
        (root / "usr/sbin" / program).symlink_to(f"/{own / program}")
    for client in (debs / "usr/bin").glob("xenstore*"):
        shutil.copy(client, root / "usr/bin", follow_symlinks=False)


def _python(debs: Path, root: Path) -> None:
    _copy(debs, f"usr/bin/{PYTHON}", root / "usr/bin")
    library = debs / "usr/lib" / PYTHON
    left_out = {path for pattern in WITHOUT for path in library.glob(pattern)}
    copy_tree(library, root / "usr/lib" / PYTHON, left_out)


def copy_tree(source: Path, target: Path, left_out: Iterable[Path] = ()) -> None:
    """A directory, without some of what is in it and without byte code."""
    unwanted = {Path(path) for path in left_out}

    def ignore(directory: str, names: list[str]) -> list[str]:
        return [name for name in names if name == "__pycache__" or Path(directory, name) in unwanted]

    shutil.copytree(source, target, symlinks=True, ignore=ignore, dirs_exist_ok=True)


def _copy(debs: Path, name: str, directory: Path) -> None:
    shutil.copy(one(debs, name), directory)
