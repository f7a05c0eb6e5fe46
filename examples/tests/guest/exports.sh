# A share of several directories, `rw` and `ro`, is a tree of mounts.

. "${WORKLOAD%/*}/lib.sh"

exports_are_mounts() {
    [ "$(ls)" = "ro
rw" ]
    [ "$(cat ro/file rw/file)" = "ro
rw" ]
    # Three devices, though the files on the host are of one.
    [ "$(stat -c %d . rw/file ro/file | sort -u | wc -l)" = 3 ]
    [ "$(find . -type f | sort)" = "./ro/file
./rw/file" ]
    df . rw ro
}

changes_stay_where_they_may_be() {
    mkdir rw/directory
    echo new >rw/directory/new
    ln rw/directory/new rw/link
    mv rw/directory/new rw/moved
    refused 'Read-only file system' touch new
    refused 'Read-only file system' touch ro/new
    refused 'Read-only file system' mv rw/moved ro
    refused 'Invalid cross-device link' ln rw/moved ro
    cp ro/file rw/copied
    dd if=/dev/zero of=rw/big bs=1M count=20 conv=fsync
    drop_caches
    [ "$(stat -c %s rw/big)" = 20971520 ]
    [ "$(cat rw/link rw/copied)" = "new
ro" ]
    rm -r rw/directory rw/big
}

refused() {
    local why=$1
    shift
    if "$@" 2>"$TMPDIR/error"; then
        return 1
    fi
    grep "$why" "$TMPDIR/error"
}

survives_a_remount() {
    remount_share
    [ "$(cat rw/link)" = new ]
}

if [ $# -gt 0 ]; then
    "$@"
else
    run_steps exports_are_mounts changes_stay_where_they_may_be survives_a_remount
fi
