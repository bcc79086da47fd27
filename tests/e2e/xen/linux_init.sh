#!/bin/busybox sh
# The first process of the Linux guest that is saved and restored.  Every line says which boot it is, so that one who
# goes on counting after a restore has been restored, and one who begins anew has not.
/bin/busybox mount -t proc proc /proc
boot=$(/bin/busybox cat /proc/sys/kernel/random/boot_id)
count=0
while :; do
    count=$((count + 1))
    echo "linux $boot $count"
    /bin/busybox usleep 100000
done
