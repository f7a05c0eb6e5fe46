# An overlay whose upper directory is on the share and whose lower one, LOWER, is on the root.
# The host looks at what is in `upper` then.

. "${WORKLOAD%/*}/lib.sh"

MERGED=/run/merged

mounted() {
    modprobe overlay
    mkdir -p upper work $MERGED
    mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$PWD/upper,workdir=$PWD/work,redirect_dir=on" $MERGED
    # What it could not do without is told here.
    dmesg | grep 'overlayfs:' || :
    if dmesg | grep -E 'overlayfs:.*(fail|not support|missing|fall(ing)? back)'; then return 1; fi
}

built() {
    cd $MERGED
    make --silent
    test "$(./program)" = 'one two'
    # Copied up for this.
    echo 'const char *two(void) { return "changed"; }' >two.c
    make --silent
    test "$(./program)" = 'one changed'
}

changed() {
    cd $MERGED
    rm removed/file
    rm -r replaced
    mkdir replaced
    echo new >replaced/new
    mv renamed elsewhere
    test "$(cat elsewhere/deep/file)" = deep
    mv moved elsewhere/moved
    chmod 600 mode
    chown 1234:5678 mode
    setfattr -n user.test -v value mode
    mv replaced/new replaced/newer
    ln replaced/newer link
}

# Twice: as it was left, and mounted anew.
found() {
    cd $MERGED
    test ! -e removed/file
    test -e removed/other
    test "$(ls replaced)" = newer
    test ! -e renamed
    test "$(cat elsewhere/deep/file elsewhere/moved)" = "$(printf 'deep\nmoved\n')"
    test "$(stat -c '%a %u %g' mode)" = '600 1234 5678'
    test "$(getfattr --only-values -n user.test mode)" = value
    test "$(stat -c %h replaced/newer)" = 2
    test "$(./program)" = 'one changed'
    make --question
}

mounted_again() {
    umount $MERGED
    mounted
    found
}

if [ $# -gt 0 ]; then
    "$@"
else
    run_steps mounted built changed found mounted_again
fi
