# Everyday work on a share, with checksums. The first boot does it all and resets the machine; the
# second finds everything in place.
#
# The host puts a git repository into `source`, and looks at what is left when the guest is gone.

. "${WORKLOAD%/*}/lib.sh"

# 256 MiB, each block different from the others so that none can pass for another.
big_file_content() {
    for block in $(seq 16); do
        echo "block $block"
        cat "$TMPDIR/block"
    done | head -c 268435456
}

big_file() {
    dd if=/dev/urandom of="$TMPDIR/block" bs=1M count=16 status=none
    big_file_content | md5sum | sed 's/-/big_file/' >big_file.md5
    big_file_content | dd of=big_file bs=1M iflag=fullblock conv=fsync status=none
    test "$(stat -c %s big_file)" = 268435456
    drop_caches
    md5sum --quiet -c big_file.md5
    # Straight through, and from the middle.
    drop_caches
    dd if=big_file of=/dev/null bs=1M iflag=direct status=none
    test "$(dd if=big_file bs=1M skip=100 count=1 status=none | md5sum)" = \
        "$(big_file_content | dd bs=1M iflag=fullblock skip=100 count=1 status=none | md5sum)"
}

# 5,000 files in 50 directories: created, listed, renamed, removed; every 50th is left for the host.
many_files() {
    perl -e '
        use strict;
        sub listed { opendir(my $d, ".") or die "list: $!"; grep { !/^\./ } readdir($d) }
        sub in_each { my ($do) = @_; for my $d (0 .. 49) { chdir("d$d") or die "d$d: $!"; $do->($d); chdir("..") } }
        sub count { my $n = 0; in_each(sub { $n += listed() }); $n }
        mkdir("tree") && chdir("tree") or die "tree: $!";
        mkdir("d$_") or die "d$_: $!" for 0 .. 49;
        in_each(sub {
            my ($d) = @_;
            for my $f (0 .. 99) {
                open(my $h, ">", "f$f") or die "create: $!";
                print $h "file $f of $d\n";
                close($h) or die "close: $!";
            }
        });
        count() == 5000 or die "created: ", count();
        in_each(sub { for (listed()) { rename($_, "renamed-$_") or die "rename: $!" } });
        count() == 5000 or die "renamed: ", count();
        -e "d7/f7" and die "the old name is still there";
        -s "d7/renamed-f7" == length("file 7 of 7\n") or die "size";
        in_each(sub {
            for (listed()) { /^renamed-f(0|50)$/ or unlink($_) or die "unlink: $!" }
        });
        count() == 100 or die "removed: ", count();
    '
    cp -a tree doomed
    rm -r doomed
    test ! -e doomed
}

git_clone() {
    git clone --quiet --no-local source clone
    git -C clone fsck --full --strict
    test -z "$(git -C clone status --porcelain)"
    test "$(git -C clone rev-parse HEAD)" = "$(git -C source rev-parse HEAD)"
    echo changed >clone/changed
    git -C clone add changed
    git -C clone -c user.name=guest -c user.email=guest@example.org commit --quiet -m 'From the guest'
    git -C clone gc --quiet
    git -C clone fsck --full --strict
}

archive() {
    tar -cf "$TMPDIR/clone.tar" clone
    mkdir unpacked
    tar -xpf "$TMPDIR/clone.tar" -C unpacked
    drop_caches
    (cd clone && find . -type f -print0 | sort -z | xargs -0 md5sum) >clone.md5
    (cd unpacked/clone && md5sum --quiet -c ../../clone.md5)
    tar -df "$TMPDIR/clone.tar" -C unpacked
}

database() {
    sqlite3 database.sqlite <<'SQL' >database.out
PRAGMA journal_mode = DELETE;
CREATE TABLE t (id INTEGER PRIMARY KEY, value TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
    INSERT INTO t SELECT i, hex(randomblob(50)) FROM n;
CREATE INDEX t_value ON t (value);
BEGIN; UPDATE t SET value = 'lost'; ROLLBACK;
BEGIN; DELETE FROM t WHERE id % 2 = 0; COMMIT;
SQL
    drop_caches
    test "$(sqlite3 database.sqlite 'PRAGMA integrity_check')" = ok
    test "$(sqlite3 database.sqlite "SELECT count(*) FROM t WHERE value <> 'lost'")" = 2500
    test ! -e database.sqlite-journal
}

metadata() {
    mkdir metadata
    cd metadata
    echo x >file
    chown 1234:5678 file
    chmod 4751 file
    touch -d '2001-02-03 04:05:06.123456789 UTC' file
    ln file hard
    ln -s ../somewhere/else soft
    mkfifo pipe
    truncate -s 1000000 sparse
    fallocate -l 65536 reserved
    drop_caches
    test "$(stat -c '%a %u %g %h %.9Y' file)" = '4751 1234 5678 2 981173106.123456789'
    test "$(readlink soft)" = ../somewhere/else
    test -p pipe
    test "$(stat -c %s sparse reserved | tr '\n' ' ')" = '1000000 65536 '
    test "$(stat -c %i file)" = "$(stat -c %i hard)"
}

# The root share is read-only, whatever the guest calls it.
read_only_root() {
    mount -o remount,rw /
    if touch /var/tmp/forbidden 2>"$TMPDIR/error"; then return 1; fi
    grep -q 'Read-only file system' "$TMPDIR/error"
    if chmod 700 "$WORKLOAD" 2>/dev/null; then return 1; fi
    mount -o remount,ro /
}

mounted_again() {
    remount_share
    all_there
}

all_there() {
    md5sum --quiet -c big_file.md5
    (cd unpacked/clone && md5sum --quiet -c ../../clone.md5)
    git -C clone fsck --full --strict
    test "$(sqlite3 database.sqlite 'PRAGMA integrity_check')" = ok
    test "$(ls tree/* | grep -c '^renamed-')" = 100
}

if [ $# -gt 0 ]; then
    "$@"
elif [ ! -e $SHARE/first_boot ]; then
    touch $SHARE/first_boot
    run_steps read_only_root metadata big_file many_files git_clone archive database mounted_again &&
        reset_machine
else
    run_steps all_there && touch $SHARE/second_boot
fi
