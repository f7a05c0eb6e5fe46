# One of two guests that lock files of one directory: ROLE says which.

. "${WORKLOAD%/*}/lib.sh"

locked() {
    perl "${WORKLOAD%/*}/locks.pl" "$ROLE" </dev/null
}

if [ $# -gt 0 ]; then
    "$@"
else
    run_steps locked
fi
