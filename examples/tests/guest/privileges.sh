# ACLs, labels and attributes that have other names on the host, and users that are others there.
# What the host has of it, the host checks.

. "${WORKLOAD%/*}/lib.sh"

# Runs a command of the shell as a user and group of its own.
as() {
    setpriv --reuid "$1" --regid "$1" --clear-groups sh -euxc "$2"
}

# A command that must fail. A shell goes on after `! command`, whatever comes of it.
refused() {
    if "$@"; then
        echo "succeeded: $*"
        return 1
    fi
}

has_capability() {
    getfattr -m security.capability tool | grep security.capability
}

set_capability() {
    # CAP_NET_RAW, effective (capabilities(7)).
    setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 tool
    drop_caches
    has_capability
}

acls() {
    chmod 777 .
    as 1000 '
        umask 077
        mkdir dir
        setfacl -m u:1001:rwx dir
        setfacl -d -m u:1002:rwx,g:1003:r dir'
    as 1001 'umask 077; echo content >dir/file; mkdir dir/sub; mkfifo dir/pipe'
    refused as 1002 'ls dir/sub'
    refused as 1002 'touch dir/another'
    drop_caches
    test "$(stat -c %a dir/file dir/sub dir/pipe | tr '\n' ' ')" = '660 770 660 '
    getfacl -cn dir/sub | grep -x default:user:1002:rwx
    getfacl -cn dir/file | grep -x 'user:1002:rwx.*#effective:rw-'
    # The mode is the mask, and no longer is where there is no ACL.
    chmod 640 dir/file
    getfacl -cn dir/file | grep -x mask::r--
    setfacl -b dir/file
    test "$(stat -c %a dir/file)" = 600
    # Without a default ACL, the umask counts.
    as 1000 'umask 027; touch plain; mkdir plain_dir'
    test "$(stat -c %a plain plain_dir | tr '\n' ' ')" = '640 750 '
    # Who is not in the group of a file cannot make it one with SGID.
    touch sgid
    chown 1000:1005 sgid
    chmod 2755 sgid
    as 1000 'setfacl -m u:1001:r sgid'
    test "$(stat -c %a sgid)" = 755
}

attributes() {
    echo content >tool
    setfattr -n trusted.a -v value tool
    test "$(getfattr --only-values -n trusted.a tool)" = value
    chmod 666 tool
    # They are there until the file changes, be it by whom it belongs to.
    for change in 'echo x >>tool' 'truncate -s 1 tool' ': >tool' 'chgrp 0 tool' 'fallocate -l 9 tool'; do
        set_capability
        eval "$change"
        refused has_capability
    done
    set_capability
    chown 1000 tool
    refused has_capability
    set_capability
    as 1000 'echo x >>tool'
    refused has_capability
    # What stands for them on the host is not to be had directly.
    refused setfattr -n trusted.virtiofs.security.capability -v 0x00 tool
    refused setfattr -n trusted.virtiofs.any -v value tool
    getfattr -d -m - tool >"$TMPDIR/attributes"
    refused grep virtiofs "$TMPDIR/attributes"
}

# The kernel has an SELinux without a policy, to which all is one thing.
labels() {
    label=$(tr -d '\0' </proc/self/attr/current)
    test -n "$label"
    mkdir labelled
    echo content >labelled/file
    mkdir labelled/dir
    mkfifo labelled/pipe
    ln -s target labelled/link
    drop_caches
    for name in file dir pipe link; do
        getfattr -h --only-values -n security.selinux labelled/$name
    done
}

if [ $# -gt 0 ]; then
    "$@"
else
    run_steps acls attributes labels
fi
