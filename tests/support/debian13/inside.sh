#!/usr/bin/env bash
# The first process of the namespaces that tests.support.debian13 makes:  inside.sh ROOT [DIRECTORY...] -- COMMAND...
#
# Mounts what a system has over ROOT, and this machine's DIRECTORIES read-only at their own place, and runs the command
# in there.  It stays as the first process, to reap what the tests orphan; when it ends the kernel ends all of them.
set -euo pipefail
root=$1
shift
mount --bind "$root" "$root" # libvirtd and others look for the mount that / is
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/run" # nothing there is left of the last run
while [ "$1" != -- ]; do
    mkdir -p "$root$1"
    mount --bind "$1" "$root$1"
    mount -o remount,bind,ro "$root$1"
    shift
done
shift
chroot "$root" dpkg --configure -a --force-confold >/dev/null # a run that was ended while it installed left that to do
trap : INT # the command has it as well: this waits for what it makes of it
status=0
chroot "$root" "$@" || status=$? # in the foreground: bash has what is in the background ignore SIGINT
exit "$status"
