# Writes until the machine is taken away; the next one finds the share as good as new.

. "${WORKLOAD%/*}/lib.sh"

write_for_ever() {
    dd if=/dev/urandom of=kept bs=1M count=8 status=none
    md5sum kept >kept.md5
    sync
    touch first_boot
    mkdir endless
    i=0
    while :; do
        i=$((i + 1))
        dd if=kept of="endless/$i" bs=64k status=none
        [ $i != 3 ] || echo 'guest: writing' >/dev/console
        rm -f "endless/$((i - 2))"
    done
}

still_served() {
    md5sum --quiet -c kept.md5
    rm -r endless
    echo fine >second_boot
}

if [ $# -gt 0 ]; then
    "$@"
elif [ ! -e $SHARE/first_boot ]; then
    run_steps write_for_ever
else
    run_steps still_served
fi
