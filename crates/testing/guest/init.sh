#!/bin/sh
# The first process of a test guest, whose root is the host's own `/`, shared read-only.
#
# Mounts what programs need, the share DATA_TAG at /run/share if there is one, and runs the script WORKLOAD.
# What cargo has installed is in TOOLS. These names come from the kernel's command line, with what
# else the workload wants to know. The boot ends as the workload says, and with a
# power-off where it fails or returns.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$TOOLS
export HOME=/run/home TMPDIR=/run/tmp LC_ALL=C

power_off() {
    sync
    echo o >/proc/sysrq-trigger
    # The request is carried out by the kernel, later; the first process must not end before.
    while :; do sleep 60; done
}

start() {
    mount -t proc proc /proc &&
        mount -t sysfs sys /sys &&
        { mountpoint -q /dev || mount -t devtmpfs dev /dev; } &&
        mount -t tmpfs tmpfs /run &&
        mkdir -p /run/share /run/home /run/tmp &&
        { [ -z "$DATA_TAG" ] || mount -t virtiofs "$DATA_TAG" /run/share; }
}

if start; then
    sh "$WORKLOAD" || echo "guest: FAILED $WORKLOAD"
else
    echo "guest: FAILED to start"
fi
power_off
