#!/bin/busybox sh
# Domain 0's first and only process: Xen's devices and daemons, then the command it was started for, then off.
# The lines that begin with "e2e-xen:" are for who reads the serial console: console.py beside this.
export PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs -o size=75% tmp /tmp # room for a guest's memory
ln -s /proc/self/fd /dev/fd
ip link set lo up

for module in xen-privcmd xenfs xen-evtchn xen-gntdev xen-gntalloc; do
    insmod /lib/modules/$module.ko || echo "e2e-xen: failed $module"
done
mount -t xenfs xenfs /proc/xen
xenstored --pid-file /run/xen/xenstored.pid
tries=0
until xenstore-exists / 2>/dev/null; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || { echo "e2e-xen: failed xenstored"; poweroff -f; }
    usleep 50000
done
xen-init-dom0 >/dev/null && xenconsoled --pid-file=/run/xen/xenconsoled.pid --log=guest ||
    { echo "e2e-xen: failed xenconsoled"; poweroff -f; }

echo "e2e-xen: ready"
cd /e2e && sh /e2e-command
echo "e2e-xen: result $?"
poweroff -f
