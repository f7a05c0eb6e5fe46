# What the workloads have in common.

SHARE=/run/share

# Runs each of the named functions of the workload in a shell of its own, in the share, where the
# first command that fails ends it; and tells the host, with the last commands where it failed.
run_steps() {
    for step; do
        begin=$(uptime_seconds)
        if (cd $SHARE && exec sh -eux "$WORKLOAD" "$step") >"$TMPDIR/log" 2>&1; then
            echo "guest: ok $step ($begin s to $(uptime_seconds) s)"
        else
            tail -n 60 "$TMPDIR/log"
            echo "guest: FAILED $step"
            return 1
        fi
    done
}

uptime_seconds() {
    cut -d ' ' -f 1 /proc/uptime
}

# What the kernel cached of the share's files is read again.
drop_caches() {
    sync
    echo 3 >/proc/sys/vm/drop_caches
}

remount_share() {
    cd /
    umount $SHARE
    mount -t virtiofs "$DATA_TAG" $SHARE
    cd $SHARE
}

# A reset of the machine, as a crash would do it: nothing is unmounted.
reset_machine() {
    echo b >/proc/sysrq-trigger
    while :; do sleep 60; done
}
