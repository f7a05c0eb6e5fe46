# The filesystem class of stress-ng, each of its tests in turn, and what each of them verifies.
#
# SECONDS_EACH says how long each of them goes on.

. "${WORKLOAD%/*}/lib.sh"

stressed() {
    mkdir stress
    # But for those that have nothing to do with a share.
    stress-ng --class filesystem --exclude binderfs,eventfd,ioprio,procfs --sequential 2 \
        --timeout "$SECONDS_EACH" --verify --temp-path stress --oom-avoid --metrics-brief >"$TMPDIR/stress" 2>&1 || {
        cat "$TMPDIR/stress"
        return 1
    }
    cp "$TMPDIR/stress" stress.log
    rmdir stress
}

if [ $# -gt 0 ]; then
    "$@"
else
    run_steps stressed
fi
