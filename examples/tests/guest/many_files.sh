# A walk through a tree of FILES files; SUM is what the host finds of it.

. "${WORKLOAD%/*}/lib.sh"

found() {
    cd tree
    test "$(find . -type f -printf '%i %m %s %T@ %p\n' | sort | md5sum)" = "$SUM  -"
}

listed() {
    test "$(ls -lR tree | grep -c '^-')" = "$FILES"
}

# The inodes are known still, their attributes not: each is asked for by its node.
known() {
    sleep 2
    found
}

# Files from all over the tree, a long time after they were looked up.
read_and_renamed() {
    cd tree
    for directory in d*; do
        test "$(cat "$directory/f6")" = xxxxxx
        mv "$directory/f6" "$directory/renamed"
        test "$(cat "$directory/renamed")" = xxxxxx
        mv "$directory/renamed" "$directory/f6"
    done
    cd ..
    drop_caches
    found
}

if [ $# -gt 0 ]; then
    "$@"
else
    run_steps found listed known read_and_renamed
fi
