# Works on a share whose daemon is replaced: while it is not mounted, while it is, and before the
# machine is reset. TOLD with a number is the name of a file that appears when that was done. Where
# DAEMON_KEEPS nothing of what is in flight, the reset comes instead of another mount.

. "${WORKLOAD%/*}/lib.sh"

wait_until_told() {
    while [ ! -e "$TOLD$1" ]; do sleep 0.2; done
}

work() {
    dd if=/dev/urandom of=big_file bs=1M count=32 conv=fsync status=none
    md5sum big_file >big_file.md5
    mkdir files
    for n in $(seq 200); do
        echo "file $n" >"files/$n"
    done
    find files -type f -print0 | xargs -0 md5sum >files.md5
    all_there
}

all_there() {
    drop_caches
    md5sum --quiet -c big_file.md5
    md5sum --quiet -c files.md5
    [ "$(ls files | wc -l)" = 200 ]
}

mounted_again() {
    remount_share
    all_there
}

replaced_while_not_mounted() {
    cd /
    umount $SHARE
    echo 'guest: unmounted' >/dev/console
    wait_until_told 1
    mount -t virtiofs "$DATA_TAG" $SHARE
    cd $SHARE
    all_there
    rm -r files
    work
}

# What is open is lost with the daemon; the guest goes on with a new mount.
replaced_while_mounted() {
    work_until_it_fails &
    sleep 1
    echo 'guest: works' >/dev/console
    wait_until_told 2
    wait $!
    cd /
    umount -l $SHARE
    mount -t virtiofs "$DATA_TAG" $SHARE
    cd $SHARE
    all_there
    rm -r endless
}

work_until_it_fails() {
    mkdir endless
    n=0
    while dd if=big_file of="endless/$((n % 10))" bs=64k count=16 status=none; do
        n=$((n + 1))
    done
    echo "guest: round $n failed" >/dev/console
}

# What was in flight is never answered.
lost_while_mounted() {
    work_until_it_fails &
    sleep 1
    echo 'guest: works' >/dev/console
    wait_until_told 2
    reset_machine
}

if [ $# -gt 0 ]; then
    "$@"
elif [ -e $SHARE/first_boot ]; then
    run_steps all_there && touch $SHARE/second_boot
else
    touch $SHARE/first_boot
    run_steps work mounted_again replaced_while_not_mounted || exit
    case $DAEMON_KEEPS in
        nothing) run_steps lost_while_mounted ;;
        *) run_steps replaced_while_mounted && reset_machine ;;
    esac
fi
