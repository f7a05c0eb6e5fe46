#!/bin/sh
# The first process of User Mode Linux, whose root is the host's, read-only: mounts the share with
# the tag `data`, works on it, and tells how that went on the console.

export PATH=/usr/sbin:/usr/bin:/sbin:/bin

work() {
    set -eux
    mount -t proc proc /proc
    mount -t tmpfs tmpfs /mnt
    mkdir /mnt/share
    modules=/usr/lib/uml/modules/$(uname -r)/kernel/fs/fuse
    insmod "$modules/fuse.ko"
    insmod "$modules/virtiofs.ko"
    mount -t virtiofs data /mnt/share
    cd /mnt/share
    [ "$(cat from_host)" = hello ]
    echo hello >from_guest
    cp big copy
    sync
    cd /
    # The device is reset, and its rings are set up anew.
    umount /mnt/share
    mount -t virtiofs data /mnt/share
    cd /mnt/share
    cmp big copy
    mkdir directory
    for n in $(seq 100); do
        echo "$n" >"directory/$n"
    done
    [ "$(ls directory | wc -l)" = 100 ]
    rm copy
    cd /
    umount /mnt/share
}

(work) && echo 'guest: ok' || echo 'guest: FAILED'
poweroff -f
