# Two processes on one SQLite database, which share memory through the share where it is in WAL mode.
#
# JOURNAL is the journal mode; MAPPINGS says whether this cache mode has shared mappings.

. "${WORKLOAD%/*}/lib.sh"

DATABASE=database.sqlite
TRANSACTIONS=150

sql() {
    sqlite3 -bail -cmd '.timeout 300000' $DATABASE "$@"
}

created() {
    sql 'CREATE TABLE account (name TEXT PRIMARY KEY, value INTEGER);
        CREATE TABLE entry (id INTEGER PRIMARY KEY, who TEXT, n INTEGER, filler TEXT);
        INSERT INTO account VALUES ("a", 0), ("b", 0);'
}

# WAL needs shared memory. Without it, nobody can use a database in that mode, but one process that
# keeps all others out and turns it back: it is as good as it was.
no_wal() {
    if sql "PRAGMA journal_mode = WAL; INSERT INTO entry VALUES (1, 'x', 0, '');" >"$TMPDIR/wal" 2>&1; then
        cat "$TMPDIR/wal"
        return 1
    fi
    cat "$TMPDIR/wal"
    grep 'disk I/O error' "$TMPDIR/wal"
    sql 'PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = DELETE' | grep -x delete
    test "$(sql 'PRAGMA integrity_check')" = ok
    test "$(sql 'SELECT count(*) FROM entry')" = 0
}

# Argument: the process's own name. Each transaction reads what the other one writes.
transactions() {
    for n in $(seq $TRANSACTIONS); do
        echo "BEGIN IMMEDIATE;
            INSERT INTO entry (who, n, filler) VALUES ('$1', $n, hex(randomblob(500)));
            UPDATE account SET value = (SELECT sum(value) FROM account) + 1 WHERE name = '$1';
            UPDATE account SET value = 0 WHERE name <> '$1';
            COMMIT;
            SELECT count(*) FROM entry WHERE who = '$1' AND n = $n;"
    done | sql | sort | uniq -c | grep -E "^ *$TRANSACTIONS 1$"
}

two_processes() {
    sql "PRAGMA journal_mode = $1" | grep -x "$1"
    transactions a &
    a=$!
    transactions b &
    b=$!
    wait $a
    wait $b
    checked $((2 * TRANSACTIONS))
    remount_share
    checked $((2 * TRANSACTIONS))
}

checked() {
    test "$(sql 'PRAGMA integrity_check')" = ok
    test "$(sql 'SELECT count(*) FROM entry')" = "$1"
    test "$(sql 'SELECT sum(value) FROM account')" = "$1"
}

wal() {
    two_processes wal
}

delete() {
    two_processes delete
}

if [ $# -gt 0 ]; then
    "$@"
elif [ "$MAPPINGS" = yes ]; then
    run_steps created wal
else
    run_steps created no_wal delete
fi
