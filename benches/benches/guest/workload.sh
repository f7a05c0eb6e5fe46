# Does in the guest what the benchmark types on the console, a line for each command:
#
#     NUMBER SHARE COMMAND...
#
# COMMAND is a function of this script and its arguments, run in the share. The answer is
#
#     bench: NUMBER STATUS MICROSECONDS [what the command has to tell]

[ -n "$BASH_VERSION" ] || exec bash "$0"

TRACE=/sys/kernel/tracing
SENT=$TRACE/events/fuse/fuse_request_send
HISTOGRAM=hist:keys=connection,opcode

# Once, before anything else: both shares mounted, the kernel ready to count requests. Older ones
# cannot; then there are no figures.
setup() {
    local share
    declare -gA DEVICES
    for share in ${SHARES//,/ }; do
        mkdir -p "/run/$share" && mount -t virtiofs "$share" "/run/$share" || return 1
        # The root's is the first, and has number 0.
        DEVICES[$share]=virtio$((${#DEVICES[@]} + 1))
    done
    git config --global safe.directory '*'
    cp "/run/$share/tree.tar" "$TMPDIR/" || return 1
    mount -t tracefs tracefs $TRACE
    return 0
}

# From now on requests are counted.
count() {
    [ ! -e $SENT ] || echo "$HISTOGRAM" >$SENT/trigger
}

# Requests to this share since then, as OPCODE=COUNT; they are counted no more.
counted() {
    [ -e $SENT ] || return 0
    local line connection fields
    connection=$(stat -c %d .)
    while read -r line; do
        fields=($line)
        [ "${fields[1]}" = connection: ] && [ "${fields[2]}" = "$connection," ] &&
            printf ' %s=%s' "${fields[4]}" "${fields[7]}"
    done <$SENT/hist
    echo "!$HISTOGRAM" >$SENT/trigger
}

# Takes these shares' devices from their driver and gives them back in this order: the kernel
# chooses a processor for the interrupts of each, another one for the second than for the first.
attach() {
    local share driver=/sys/bus/virtio/drivers/virtiofs
    cd /
    for share; do
        umount "/run/$share"
        echo "${DEVICES[$share]}" >$driver/unbind
    done
    for share; do
        echo "${DEVICES[$share]}" >$driver/bind
        mount -t virtiofs "$share" "/run/$share"
    done
}

# Nothing of the share is cached afterwards.
cold() {
    cd /
    umount "/run/$share"
    mount -t virtiofs "$share" "/run/$share"
    cd "/run/$share"
}

unpacked() {
    [ -e tree ] || unpack
}

unpacked_cold() {
    unpacked
    cold
}

unpacked_warm() {
    # What has just been written may be read once more.
    [ -e tree ] || { unpack && sleep 3; }
    du -s tree >/dev/null
    grep -r 'not there' tree || true
}

status_cold() {
    status
    cold
}

not_compiled() {
    make -s -C project clean
    # The compiler comes from the root's share, and is in memory from now on.
    echo 'int x;' | gcc -c -o /dev/null -x c -
}

without_tree() {
    rm -rf tree
}

unpack() {
    mkdir tree
    tar -xf "$TMPDIR/tree.tar" -C tree
}

list_all() {
    find tree -printf '%s\n' >/dev/null
}

disk_usage() {
    du -s tree >/dev/null
}

search() {
    ! grep -r 'not there' tree
}

remove() {
    rm -rf tree
}

status() {
    git -C repository status --porcelain
}

compile() {
    make -s -j2 -C project
}

# RW BLOCK DEPTH DIRECT TOTAL: what fio(1) took without its start.
io() {
    local engine=psync
    [ "$3" = 1 ] || engine=libaio
    fio --minimal --name=io --filename=data --rw="$1" --bs="$2" --iodepth="$3" --direct="$4" \
        --io_size="$5" --size=128M --ioengine=$engine --thread --randrepeat=1 >"$TMPDIR/fio"
    # Milliseconds of reading and of writing; one of them is 0.
    cut -d ';' -f 9,50 "$TMPDIR/fio" | tr ';' '+' >"$TMPDIR/millis"
}

answer() {
    local number=$1 share=$2 begin end
    shift 2
    rm -f "$TMPDIR/millis"
    begin=${EPOCHREALTIME/./}
    (
        set -e
        cd "/run/$share"
        "$@"
    ) >"$TMPDIR/out" 2>"$TMPDIR/log"
    local status=$?
    end=${EPOCHREALTIME/./}
    local micros=$((end - begin)) told=
    [ ! -s "$TMPDIR/millis" ] || micros=$((($(cat "$TMPDIR/millis")) * 1000))
    [ "$1" != counted ] || told=$(<"$TMPDIR/out")
    [ $status = 0 ] || tail -n 20 "$TMPDIR/log"
    echo "bench: $number $status $micros$told"
}

stty -echo
setup || exit 1
echo 'bench: ready'
while read -r command; do
    [ "$command" != end ] || break
    # shellcheck disable=SC2086
    answer $command
done
