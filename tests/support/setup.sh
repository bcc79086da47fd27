#!/usr/bin/env bash
# Makes the virtual environment that `make` works in:  tests/support/setup.sh VENV demo|test|dev
#
# demo: eventbridge, libvirt-python, pyuv, selectors2.  test: and what the tests use.  dev: and linters, type checker, plots.
# Debian's packages are installed when this runs as root; otherwise it says which are missing and goes on with what is
# there: the simulated hypervisor and the asyncio and select hosts need none of them.
set -euo pipefail
venv=$1
what=$2
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
[ -t 2 ] || say() { printf '==> %s\n' "$*" >&2; }

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
    say "eventbridge needs Python 3.11 or later; $python is $("$python" --version 2>&1 || echo not there). Set PYTHON=..."
    exit 1
}

# What is missing: a package, and the command, header or module by which we know that it is there.
missing=()
need() { eval "$2" >/dev/null 2>&1 || missing+=("$1"); }
need gcc 'command -v gcc'
need pkg-config 'command -v pkg-config'
need libvirt-dev 'pkg-config --exists libvirt'
need libuv1 'ls /usr/lib/*/libuv.so.1'
if [ "$("$python" -c 'import sys; print(sys.prefix)')" = /usr ]; then
    need python3-venv "$python -c 'import ensurepip'"
    need python3-dev "test -e \"\$($python -c 'import sysconfig; print(sysconfig.get_path(\"include\"))')/Python.h\""
fi
if [ "$what" != demo ]; then
    need libvirt-daemon 'command -v libvirtd'
    need libvirt-daemon-driver-qemu 'ls /usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so'
    need qemu-system-x86 'command -v qemu-system-x86_64'
    need libc6-dev 'test -e /usr/include/stdio.h'
    need binutils 'command -v ld'
    need valgrind 'command -v valgrind'
    # to build PyGObject
    need libgirepository1.0-dev 'pkg-config --exists gobject-introspection-1.0'
    need libcairo2-dev 'pkg-config --exists cairo'
    need libglib2.0-dev 'pkg-config --exists glib-2.0'
    # for Qt's QtWidgets, which qasync imports
    need libegl1 'ls /usr/lib/*/libEGL.so.1'
    need libgl1 'ls /usr/lib/*/libGL.so.1'
    need libxkbcommon0 'ls /usr/lib/*/libxkbcommon.so.0'
    need libfontconfig1 'ls /usr/lib/*/libfontconfig.so.1'
    need libdbus-1-3 'ls /usr/lib/*/libdbus-1.so.3 /lib/*/libdbus-1.so.3 2>/dev/null | grep .'
fi
if [ ${#missing[@]} -gt 0 ]; then
    install="apt-get install -y --no-install-recommends ${missing[*]}"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "$install"
        apt-get update -qq >/dev/null
        DEBIAN_FRONTEND=noninteractive $install -qq >/dev/null
    else
        say "not here: ${missing[*]}. What needs them is left out; to have it:  sudo $install"
    fi
fi

made=$(cksum setup.cfg tests/support/setup.sh tests/support/pyuv_build.h | cksum | cut -d' ' -f1)
[ -e "$venv/.made-for-$what-$made" ] && exit 0

say "making $venv"
"$python" -m venv "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }
pip install 'setuptools>=77' 2>/dev/null || pip install 'setuptools>=77'
extras=selectors2
[ "$what" = demo ] || extras=selectors2,test
[ "$what" = dev ] && extras=selectors2,test,dev
pip install --editable ".[$extras]"
if pkg-config --exists libvirt 2>/dev/null; then
    say "building libvirt-python (about 15 s)"
    pip install libvirt-python || say "libvirt-python could not be built: libvirt is left out"
fi
say "building pyuv (about 10 s)"
CFLAGS="-include $PWD/tests/support/pyuv_build.h" pip install --no-cache-dir pyuv==1.4.0 2>/dev/null ||
    { say "pyuv could not be built: libuv is used through cffi"; pip install cffi; }
if [ "$what" != demo ]; then
    say "building PyGObject (about 20 s)" # from 3.51 on it wants girepository-2.0, which Debian 12 does not have
    pip install 'PyGObject<3.51' gbulb || say "PyGObject could not be built: the glib host is left out"
fi
if [ "$what" != demo ]; then
    say "fetching Xen's libraries (about 10 s), after which the tests need no network"
    "$venv/bin/python" -m tests.support.xen.packages || say "Xen is left out"
    if "$venv/bin/python" -c 'import libvirt' 2>/dev/null; then
        "$venv/bin/python" -m tests.support.libvirt_python || say "libvirt-python's own test is left out"
    fi
fi
for part in demo test dev; do # what is more has in it what is less
    touch "$venv/.made-for-$part-$made"
    [ "$part" = "$what" ] && break
done
