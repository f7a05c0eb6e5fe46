# The tests of POSIX system calls, all of them, each feature that Linux has switched on, and remounts.
# The host reads the logs.

. "${WORKLOAD%/*}/lib.sh"

configuration() {
    cat <<TOML
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}
[settings]
# In seconds, and longer than a tick of a host's clock.
naptime = 0.02
allow_remount = $1
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
TOML
}

# Arguments: the name of the log, whether to remount, the tests where not all.
pass() {
    local log="$1" status=0
    configuration "$2" >"$TMPDIR/pjdfstest.toml"
    shift 2
    # Its output is not on the share, which cannot become read-only while it is written to.
    pjdfstest -c "$TMPDIR/pjdfstest.toml" -s "$TMPDIR" "$@" >"$TMPDIR/$log" 2>&1 || status=$?
    cp "$TMPDIR/$log" .
    [ $status = 0 ] || grep -A 2 -e FAILED -e Error "$log"
    return $status
}

all_but_remounts() {
    pass all.log false
}

# On their own, because others leave files open for writing.
remounts() {
    pass remounts.log true erofs
}

if [ $# -gt 0 ]; then
    "$@"
else
    run_steps all_but_remounts remounts
fi
