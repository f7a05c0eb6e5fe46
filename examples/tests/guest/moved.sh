# Works until it is told to stop, in one host after the other.

. "${WORKLOAD%/*}/lib.sh"

work() {
    exec 3>>log 4>held
    echo 'written before' >&4
    mkdir directory
    cd directory
    i=0
    while [ ! -e ../stop ]; do
        i=$((i + 1))
        echo "line $i" >&3
        head -c 300000 /dev/urandom >"file$((i % 10))"
        md5sum "file$((i % 10))" >"$TMPDIR/sum"
        md5sum --quiet -c "$TMPDIR/sum"
        mkdir "made$i"
        mv "made$i" "moved$i"
        rmdir "moved$i"
        # What the root has of this need not have been known where the guest was before.
        ls "/usr/share/doc/$(ls /usr/share/doc | sed -n "$((i * 7))p")" >/dev/null
        echo "guest: round $i" >/dev/console
    done
    echo 'written after' >&4
    md5sum file* >sums
    drop_caches
    md5sum --quiet -c sums
    [ "$(wc -l <../log)" = "$i" ]
    [ "$(tail -n 1 ../log)" = "line $i" ]
}

if [ $# -gt 0 ]; then
    "$@"
else
    run_steps work
fi
