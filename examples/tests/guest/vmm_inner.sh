#!/bin/sh
# The first process in our VMM, whose root is a share. Does the steps that are typed on its console.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C

start() {
    mount -t proc proc /proc
    mount -t sysfs sys /sys
    mount -t tmpfs tmpfs /run
    mkdir /run/data
    mount -t virtiofs data /run/data
}

work() {
    rm -rf random unpacked
    dd if=/dev/urandom of=random bs=64k count=16 conv=fsync
    mkdir unpacked
    tar -C /etc -cf - cron.d dpkg | tar -C unpacked -xf -
    find random unpacked -type f -exec md5sum {} + >sums
    check
}

# What was done before is as it was then.
check() {
    echo 3 >/proc/sys/vm/drop_caches
    md5sum --quiet -c sums
    [ ! -e io/sums ] || (cd io && md5sum --quiet -c sums)
    [ ! -e mapped/sums ] || (cd mapped && md5sum --quiet -c sums)
    [ ! -e busy.sums ] || md5sum --quiet -c busy.sums
}

io() {
    mkdir io
    for file in $(seq 8); do
        dd if=/dev/urandom of=io/$file bs=16k count=4 conv=fsync
    done
    (cd io && md5sum -- * >../io.sums && mv ../io.sums sums)
}

# To the files that are open, of which the second has no name.
append() {
    echo "$1" >&3
    [ ! -e /proc/self/fd/4 ] || echo "$1" >&4
}

unlinked() {
    [ ! -e gone ]
    [ "$(cat /proc/self/fd/4)" = "$(printf 'before\nafter')" ]
}

has_two_processors() {
    [ "$(nproc)" = 2 ]
}

# Writes for as long as it can, and notes what is safe.
busy() {
    mkdir busy
    # Or whoever waits for the step's output waits for the end of this.
    (exec >/dev/null 2>&1 && endlessly) &
}

endlessly() {
    for file in $(seq 1000); do
        dd if=/dev/urandom of=busy/$file bs=64k count=4 conv=fsync
        md5sum busy/$file >>busy.sums
    done
}

# All files of the share are used where the host has them. Of those that are larger than the window,
# or more, it has a part at a time.
dax() {
    grep ' /run/data virtiofs .*dax=always' /proc/mounts
    check
    rm -rf mapped
    mkdir mapped
    for piece in $(seq 40); do
        cat random
        echo "$piece"
    done >mapped/large
    for file in $(seq 6); do
        dd if=mapped/large of=mapped/$file bs=1M count=1 skip=$((file * 6))
        cat mapped/$file >/dev/null
        # What was read is written, and then the file becomes longer or shorter.
        printf changed | dd of=mapped/$file bs=1 seek=$((file * 4093)) conv=notrunc
        truncate -s $((file * 300000)) mapped/$file
        printf end | dd of=mapped/$file oflag=append conv=notrunc
    done
    rm mapped/1
    cp random mapped/memory
    map write_there
    cmp -n 65536 mapped/piece mapped/memory
    map write_from_there
    # What root made so is not so any more when a user has written there.
    cp random mapped/tool
    chmod 6777 mapped/tool
    as_user cmp -n 4096 mapped/tool random
    as_user dd if=random of=mapped/tool bs=4k count=1 seek=1 conv=notrunc
    [ "$(stat -c %a mapped/tool)" = 777 ]
    cp /usr/bin/cmp mapped/cmp
    (cd mapped && md5sum -- * >../mapped.sums && mv ../mapped.sums sums)
    # The program, and what it compares, are memory of the host.
    mapped/cmp mapped/cmp /usr/bin/cmp
    check
}

as_user() {
    setpriv --reuid 1000 --regid 1000 --clear-groups "$@"
}

# Does something with 64 KiB of memory where a file is mapped. Perl has no `mmap`, but system calls.
map() {
    head -c 65536 random >mapped/piece
    perl -e '
        my ($read, $write, $mmap, $len) = (0, 1, 9, 65536);
        open my $file, "+<", "mapped/memory" or die "open: $!";
        my $memory = syscall $mmap, 0, $len, 3, 1, fileno $file, 0;
        $memory != -1 or die "mmap: $!";
        my %things = (
            write_there => sub {
                open my $from, "<", "mapped/piece" or die "open: $!";
                syscall($read, fileno $from, $memory, $len) == $len or die "read: $!";
            },
            write_from_there => sub {
                # The device is to take it from there, and does not have that memory.
                open my $to, ">", "mapped/copy" or die "open: $!";
                syscall($write, fileno $to, $memory, $len) == -1 && $!{EFAULT} or die "write: $!";
            },
            use_for_ever => sub {
                while (1) {
                    open my $to, ">", "/run/used" or die "open: $!";
                    syscall($write, fileno $to, $memory, $len) == $len or die "write: $!";
                }
            },
        );
        $things{$ARGV[0]}->()' "$1"
}

# Uses a file without a request, as long as the machine does.
use_for_ever() {
    mkdir -p mapped
    cp random mapped/memory
    (exec >/run/log 2>&1 && map use_for_ever) &
    while [ ! -e /run/used ]; do
        sleep 0.2
    done
}

# The driver was told that the second device needs a reset. It has no answer to that.
told() {
    [ $(($(cat /sys/bus/virtio/devices/virtio1/status) & 64)) = 64 ]
}

reboot() {
    echo b >/proc/sysrq-trigger
}

off() {
    echo o >/proc/sysrq-trigger
}

start || echo "inner: FAILED to start"
cd /run/data || echo "inner: FAILED to mount"
stty -echo
echo "inner: ready"
while read -r step; do
    case $step in
    # What is open stays open for the next steps.
    open) exec 3>>held ;;
    unlink) exec 4<>gone && rm gone ;;
    # Nobody may be there meanwhile.
    mount*) cd / && umount /run/data && $step data /run/data && cd /run/data ;;
    *)
        # Apart, as a condition would have the shell go on after an error.
        log=$(set -eux; $step 2>&1)
        ;;
    esac
    if [ $? = 0 ]; then
        echo "inner: ok $step"
    else
        echo "$log"
        echo "inner: FAILED $step"
    fi
done
