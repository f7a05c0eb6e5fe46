# Runs our VMM in a guest that can virtualize, on daemons that run there too, and without a daemon.
# Takes the directory of the programs from PROGRAMS.

. "${WORKLOAD%/*}/lib.sh"

STATE=$TMPDIR/vmm
DATA=$STATE/data
# The consoles of all VMMs.
LOG=$STATE/console
# How many bytes of them are from before the step that is done now.
BEFORE=$STATE/before
KERNEL=$(ls /boot/vmlinuz-*-cloud-amd64 | tail -n 1)
# Seconds for what takes a few where nothing else is busy.
PATIENCE=300

# What follows is about the VMM of that name, and its daemons.
use() {
    export HERE="$STATE/$1"
    mkdir -p "$HERE"
    [ -p "$HERE/typed" ] || mkfifo "$HERE/typed"
}

start_daemons() {
    start_daemon root --shared-dir=/ --readonly
    start_data_daemon
}

start_data_daemon() {
    # By their handles those files are found that have no name.
    start_daemon data --shared-dir="$DATA" --migration-mode=file-handles --dax-window=32M \
        --xattr
}

start_daemon() {
    local tag=$1
    shift
    "$PROGRAMS/virtiofsd" --socket-path="$HERE/$tag.sock" "$@" 2>>"$HERE/$tag.log" &
    echo $! >"$HERE/$tag.pid"
}

# Starts the VMM with a device by each of the daemons, and with the options given.
start_vmm_on_daemons() {
    start_vmm --fs "tag=root,socket=$HERE/root.sock" \
        --fs "tag=data,socket=$HERE/data.sock,queue_size=512,window=64M" "$@"
}

# Starts the VMM with devices that it serves itself, and with the options given.
start_vmm_alone() {
    start_vmm --fs tag=root,dir=/,num_queues=2 --fs "tag=data,dir=$DATA,num_queues=2" "$@"
}

start_vmm() {
    look_from_here
    "$PROGRAMS/vmm" --api-socket="$HERE/api.sock" "$@" <>"$HERE/typed" >>"$LOG" 2>>"$HERE/vmm.log" &
    echo $! >"$HERE/vmm.pid"
    wait_until 'VMM' ask status
}

# Calls a function with the options of a VMM that boots, and with more.
boot() {
    "$@" --memory=size=192M --kernel="$KERNEL" --cmdline="console=ttyS0 quiet mitigations=off \
        panic=-1 root=root rootfstype=virtiofs ro init=${WORKLOAD%/*}/vmm_inner.sh"
    wait_for 'inner: ready'
}

# Types a line on the guest's console.
type_line() {
    echo "$1" >"$HERE/typed"
}

# Has the guest do a step of its script, to its end.
inner_step() {
    look_from_here
    type_line "$1"
    wait_for "inner: ok $1"
}

# Waits for a line on the guest's console.
wait_for() {
    wait_until "$1" says "$1"
    not says 'inner: FAILED'
}

says() {
    tail -c +$(($(cat "$BEFORE") + 1)) "$LOG" | grep -q "$1\|inner: FAILED"
}

# What the guest said until now is not waited for.
look_from_here() {
    touch "$LOG"
    stat -c %s "$LOG" >"$BEFORE"
}

wait_until() {
    local what=$1 tries=0
    shift
    until "$@"; do
        tries=$((tries + 1))
        if [ $tries -gt $((PATIENCE * 5)) ]; then
            tail -n 40 "$LOG" "$STATE"/*/*.log
            echo "no $what"
            return 1
        fi
        sleep 0.2
    done
}

# Gives the VMM a command, and prints what it answers, within a minute.
ask() {
    perl -MIO::Socket::UNIX -e '
        my $socket = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die "no VMM: $!";
        print $socket "$ARGV[1]\n";
        alarm 60;
        $_ = <$socket>;
        print;
        exit !/^ok/' "$HERE/api.sock" "$*"
}

is() {
    local status
    status=$(ask status)
    [ "$status" = "ok $1" ]
}

# Unlike `!`, this ends the step where the command succeeds.
not() {
    if "$@"; then
        return 1
    fi
}

ended() {
    not kill -0 "$1"
}

# Waits for the end of the VMM.
wait_for_end() {
    wait_until 'end of the VMM' ended "$(cat "$HERE/vmm.pid")"
    [ ! -e "$HERE/api.sock" ]
}

boots_on_daemons() {
    modprobe kvm_amd
    mkdir -p "$DATA"
    start_daemons
    boot start_vmm_on_daemons
    is 'running, root active, data active'
}

works() {
    inner_step work
    (cd "$DATA" && md5sum --quiet -c sums)
}

# Nothing is done while the machine is paused, and all of it then.
pauses_under_io() {
    inner_step 'rm -rf io'
    look_from_here
    type_line io
    wait_until 'first file' test -e "$DATA/io/2"
    ask pause
    is 'paused, root paused, data paused'
    find "$DATA" -ls >"$STATE/files"
    sleep 2
    find "$DATA" -ls | diff - "$STATE/files"
    ask resume
    is 'running, root active, data active'
    wait_for 'inner: ok io'
    (cd "$DATA/io" && [ "$(ls | wc -l)" = 9 ] && md5sum --quiet -c sums)
}

# What the guest maps is memory of its machine, which is not saved then.
uses_dax() {
    inner_step 'mount -t virtiofs -o dax=always'
    inner_step dax
    (cd "$DATA/mapped" && md5sum --quiet -c sums)
    ask status | grep 'running, root active, data active ([0-9]* mappings)'
    ask pause
    not ask snapshot "$STATE/saved" >"$STATE/refusal"
    grep 'error the device data: .* mappings in its DAX window' "$STATE/refusal"
    ask resume
    inner_step 'rm -rf mapped'
    inner_step 'mount -t virtiofs'
    is 'running, root active, data active'
}

# The guest is the same, in another process, on other daemons, while the first still have its files.
goes_on_elsewhere() {
    inner_step open
    inner_step unlink
    inner_step 'append before'
    ask pause
    ask snapshot "$STATE/saved"
    use second
    start_daemons
    start_vmm_on_daemons --restore="$STATE/saved"
    is 'running, root active, data active'
    # Once more, of the same parts.
    ask restore "$STATE/saved"
    is 'running, root active, data active'
    use first
    ask quit
    wait_for_end
    use second
    inner_step 'append after'
    [ "$(cat "$DATA/held")" = "$(printf 'before\nafter')" ]
    inner_step unlinked
    inner_step check
    rm "$STATE/saved"
}

reboots() {
    look_from_here
    type_line reboot
    wait_for 'inner: ready'
    inner_step check
    # Both are still the same.
    kill -0 "$(cat "$HERE/root.pid")" "$(cat "$HERE/data.pid")"
}

# What the guest had is lost with a daemon. It is told; and whoever looks after it gets answers.
loses_a_daemon_under_io() {
    inner_step busy
    wait_until 'some files' test -e "$DATA/busy/3"
    kill_daemon data
    wait_until 'failure' is 'running, root active, data failed (no daemon)'
    inner_step told
    ask pause
    is 'paused, root paused, data failed (no daemon)'
    not ask snapshot "$STATE/saved"
    ask resume
    start_data_daemon
    # Another one does not make it better by itself.
    wait_until 'daemon' is 'running, root active, data failed'
    inner_step told
}

# A machine that begins anew without one waits for it.
is_reset_without_a_daemon() {
    kill_daemon root
    wait_until 'failure' is 'running, root failed (no daemon), data failed'
    look_from_here
    ask reset
    wait_until 'boot' is 'running, root disconnected (no daemon), data active'
    start_daemon root --shared-dir=/ --readonly
    wait_for 'inner: ready'
    is 'running, root active, data active'
    inner_step check
}

kill_daemon() {
    kill -KILL "$(cat "$HERE/$1.pid")"
}

# Memory that the guest uses has gone with a daemon, and nobody can say what is there.
ends_without_what_it_uses() {
    inner_step 'mount -t virtiofs -o dax=always'
    inner_step use_for_ever
    ask status | grep 'data active ([0-9]* mappings)'
    kill_daemon data
    wait_until 'end of the VMM' ended "$(cat "$HERE/vmm.pid")"
    grep 'where no file is mapped' "$HERE/vmm.log"
}

powers_off() {
    type_line off
    wait_for_end
}

boots_without_a_daemon() {
    use third
    # Two processors, and a queue for each.
    boot start_vmm_alone --cpus=2
    is 'running, root active, data active'
    inner_step has_two_processors
    inner_step check
}

# As there is nobody else who has the guest's files, they are found by their names.
goes_on_later() {
    inner_step open
    inner_step 'append once'
    ask pause
    ask snapshot "$STATE/saved"
    ask quit
    wait_for_end
    use fourth
    start_vmm_alone --restore="$STATE/saved"
    inner_step 'append more'
    [ "$(tail -n 2 "$DATA/held")" = "$(printf 'once\nmore')" ]
    inner_step check
}

# What is no snapshot leaves the machine as it is, and another one has it as it was then.
returns_to_what_was_saved() {
    not ask restore "$KERNEL"
    inner_step 'append again'
    ask restore "$STATE/saved"
    is 'running, root active, data active'
    inner_step 'append anew'
    [ "$(tail -n 3 "$DATA/held")" = "$(printf 'more\nagain\nanew')" ]
    inner_step check
}

in_turn() {
    use first
    run_steps boots_on_daemons works pauses_under_io uses_dax goes_on_elsewhere &&
        use second &&
        run_steps reboots loses_a_daemon_under_io is_reset_without_a_daemon &&
        run_steps ends_without_what_it_uses &&
        use third &&
        run_steps boots_without_a_daemon works pauses_under_io goes_on_later &&
        use fourth &&
        run_steps returns_to_what_was_saved powers_off
}

if [ $# -gt 0 ]; then
    "$@"
else
    in_turn || {
        cat "$STATE"/*/vmm.log
        false
    }
fi
