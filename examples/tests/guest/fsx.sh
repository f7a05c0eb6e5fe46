# Random operations on a file: buffered, then also through shared mappings, then with O_DIRECT.
#
# FSX_OPERATIONS says how many of each; FSX_SHARED_MAPPINGS whether this cache mode has them ("no":
# the second way must then be refused). Each run begins with another seed, which its output tells.

. "${WORKLOAD%/*}/lib.sh"

configuration() {
    cat <<TOML
flen = 1000000
[opsize]
max = 100000
[weights]
close_open = 1
invalidate = $1
mapread = $1
mapwrite = $1
read = 10
write = 10
truncate = 3
fsync = 0.3
fdatasync = 0.3
posix_fallocate = 2
punch_hole = 2
sendfile = 3
posix_fadvise = 1
copy_file_range = 3
TOML
}

# Argument: how often it goes through mappings.
exercise() {
    configuration "$1" >"$TMPDIR/fsx.toml"
    fsx -q -f "$TMPDIR/fsx.toml" -N "$FSX_OPERATIONS" -P "$TMPDIR" file && rm file
}

buffered() {
    exercise 0
}

mapped() {
    if [ "$FSX_SHARED_MAPPINGS" = yes ]; then
        exercise 5
    elif exercise 5 2>"$TMPDIR/error"; then
        echo 'a shared mapping was not refused' >&2
        return 1
    else
        grep ENODEV "$TMPDIR/error"
    fi
}

direct() {
    cc -shared -fPIC -o "$TMPDIR/o_direct.so" "${WORKLOAD%/*}/o_direct.c"
    # Of the program alone, not of what the shell starts.
    (export LD_PRELOAD="$TMPDIR/o_direct.so" && exercise 0)
}

if [ $# -gt 0 ]; then
    "$@"
else
    run_steps buffered mapped direct
fi
