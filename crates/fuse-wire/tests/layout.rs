//! Structures, flags and opcodes against the system's own `linux/fuse.h`, through a C compiler.
//!
//! What is newer than that header is left out: structures and opcodes by the minor version that
//! brought them, flags by whether the header defines them. Another header can be compared by
//! putting its folder into `CPATH`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::mem::offset_of;
use std::process::Command;

use fuse_wire::abi::*;
use fuse_wire::flags::*;
use fuse_wire::{NodeId, NotifyCode, Opcode};

/// Something that has a number here and, by a C expression, there.
struct Claim {
    /// The expression, and for the reader what it is.
    c: String,
    ours: u64,
    since: Since,
}

enum Since {
    Minor(u32),
    Defined,
}

const OLDEST: u32 = 31;

#[test]
fn the_header_of_the_system_agrees() {
    let claims = structs()
        .into_iter()
        .chain(flags())
        .chain(numbers())
        .collect::<Vec<_>>();
    let Some(theirs) = ask_compiler(&claims) else {
        return;
    };
    let minor = theirs["FUSE_KERNEL_MINOR_VERSION"];
    assert!(
        minor >= u64::from(OLDEST),
        "linux/fuse.h is of version 7.{minor}"
    );
    let missing: Vec<_> = claims
        .iter()
        .map(|claim| &claim.c)
        .filter(|c| !theirs.contains_key(*c))
        .collect();
    let compared = claims.len() - missing.len();
    let differing: Vec<_> = claims
        .iter()
        .filter_map(|claim| Some((&claim.c, claim.ours, *theirs.get(&claim.c)?)))
        // In C, 1 << 31 is negative.
        .filter(|(_, ours, theirs)| ours != theirs && i64::from(*ours as i32) as u64 != *theirs)
        .collect();
    assert!(
        differing.is_empty(),
        "(what, ours, linux/fuse.h's): {differing:#?}"
    );
    assert!(compared > 350, "only {compared} comparisons were made");
    println!("{compared} numbers agree with linux/fuse.h 7.{minor}, which lacks {missing:?}");
}

/// What a C program says to each expression, or `None`, having said why, where none can be built.
fn ask_compiler(claims: &[Claim]) -> Option<BTreeMap<String, u64>> {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("layout.c");
    let program = dir.path().join("layout");
    std::fs::write(&source, c_program(claims)).unwrap();

    let built = match Command::new("cc")
        .arg("-o")
        .arg(&program)
        .arg(&source)
        .output()
    {
        Ok(built) => built,
        Err(error) => {
            eprintln!("skipped: no C compiler: {error}");
            return None;
        }
    };
    let errors = String::from_utf8_lossy(&built.stderr);
    if errors.contains("linux/fuse.h: No such file") {
        eprintln!("skipped: linux/fuse.h is not installed");
        return None;
    }
    assert!(built.status.success(), "{errors}");

    let output = Command::new(&program).output().unwrap();
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    Some(said.lines().map(parse_line).collect())
}

fn parse_line(line: &str) -> (String, u64) {
    let (value, expression) = line.split_once(' ').unwrap();
    (expression.to_owned(), value.parse().unwrap())
}

fn c_program(claims: &[Claim]) -> String {
    let mut program = String::from(
        "#include <stddef.h>\n#include <stdint.h>\n#include <stdio.h>\n#include <linux/fuse.h>\n\
         #define SAY(x) printf(\"%llu %s\\n\", (unsigned long long)(x), #x)\n\
         int main(void) {\n\
         printf(\"%d FUSE_KERNEL_MINOR_VERSION\\n\", FUSE_KERNEL_MINOR_VERSION);\n",
    );
    for Claim { c, since, .. } in claims {
        let condition = match since {
            Since::Minor(minor) => format!("FUSE_KERNEL_MINOR_VERSION >= {minor}"),
            Since::Defined => format!("defined({c})"),
        };
        // The text of the expression must not be expanded: SAY's # sees to that.
        writeln!(program, "#if {condition}\nSAY({c});\n#endif").unwrap();
    }
    program.push_str("return 0;\n}\n");
    program
}

/// Size and offsets of each structure: `Ours = theirs @ minor { field, field = their_name, .. }`,
/// a field with a minor of its own as `field @ minor`.
macro_rules! structs {
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $theirs:ident) => { stringify!($theirs) };
    (@minor $minor:literal) => { $minor };
    (@minor $minor:literal $own:literal) => { $own };
    ($(
        $ours:ident = $theirs:ident @ $minor:literal {
            $($field:ident $(= $their_field:ident)? $(@ $own:literal)?,)*
        }
    )*) => {{
        let mut claims = Vec::new();
        $(
            claims.push(Claim {
                c: concat!("sizeof(struct ", stringify!($theirs), ")").to_owned(),
                ours: size_of::<$ours>() as u64,
                since: Since::Minor($minor),
            });
            // So that no field is left out.
            #[allow(unused_variables, clippy::no_effect_underscore_binding)]
            let _ = |it: $ours| { let $ours { $($field),* } = it; };
            $(
                // Reserved fields change their names and sizes from version to version.
                let name = structs!(@name $field $($their_field)?);
                if !["unused", "spare", "spare2", "dummy", "padding"].contains(&name) {
                    claims.push(Claim {
                        c: format!(concat!("offsetof(struct ", stringify!($theirs), ", {})"), name),
                        ours: offset_of!($ours, $field) as u64,
                        since: Since::Minor(
                            [structs!(@minor $minor $($own)?), $minor].into_iter().max().unwrap()
                        ),
                    });
                }
            )*
        )*
        claims
    }};
}

fn structs() -> Vec<Claim> {
    let mut claims = structs! {
        Attr = fuse_attr @ 32 {
            ino, size, blocks, atime, mtime, ctime, atimensec, mtimensec, ctimensec, mode, nlink,
            uid, gid, rdev, blksize, flags,
        }
        AttrOut = fuse_attr_out @ 31 { attr_valid, attr_valid_nsec, dummy, attr, }
        EntryOut = fuse_entry_out @ 31 {
            nodeid, generation, entry_valid, attr_valid, entry_valid_nsec, attr_valid_nsec, attr,
        }
        GetattrIn = fuse_getattr_in @ 31 { getattr_flags, dummy, fh, }
        SetattrIn = fuse_setattr_in @ 31 {
            valid, padding, fh, size, lock_owner, atime, mtime, ctime, atimensec, mtimensec,
            ctimensec, mode, unused4, uid, gid, unused5,
        }
        Kstatfs = fuse_kstatfs @ 31 {
            blocks, bfree, bavail, files, ffree, bsize, namelen, frsize, padding, spare,
        }
        StatxIn = fuse_statx_in @ 39 { getattr_flags, reserved, fh, sx_flags, sx_mask, }
        SxTime = fuse_sx_time @ 39 { sec = tv_sec, nsec = tv_nsec, reserved = __reserved, }
        Statx = fuse_statx @ 39 {
            mask, blksize, attributes, nlink, uid, gid, mode, spare0 = __spare0, ino, size, blocks,
            attributes_mask, atime, btime, ctime, mtime, rdev_major, rdev_minor, dev_major,
            dev_minor, spare2 = __spare2,
        }
        StatxOut = fuse_statx_out @ 39 { attr_valid, attr_valid_nsec, flags, spare, stat, }
        Dirent = fuse_dirent @ 31 { ino, off, namelen, dirent_type = type, }
        DirentPlus = fuse_direntplus @ 31 { entry_out, dirent, }
        InHeader = fuse_in_header @ 38 {
            len, opcode, unique, nodeid, uid, gid, pid, total_extlen, padding,
        }
        OutHeader = fuse_out_header @ 31 { len, error, unique, }
        ExtHeader = fuse_ext_header @ 38 { size, ext_type = type, }
        Secctx = fuse_secctx @ 36 { size, padding, }
        // In the header of Linux 6.1, which calls itself 7.38, it is missing.
        SuppGroups = fuse_supp_groups @ 39 { nr_groups, }
        InitIn = fuse_init_in @ 36 { major, minor, max_readahead, flags, flags2, unused, }
        InitOut = fuse_init_out @ 36 {
            major, minor, max_readahead, flags, max_background, congestion_threshold, max_write,
            time_gran, max_pages, map_alignment, flags2, max_stack_depth @ 40,
            request_timeout @ 43, unused,
        }
        ReadIn = fuse_read_in @ 31 {
            fh, offset, size, read_flags, lock_owner, flags, padding,
        }
        WriteIn = fuse_write_in @ 31 {
            fh, offset, size, write_flags, lock_owner, flags, padding,
        }
        WriteOut = fuse_write_out @ 31 { size, padding, }
        LseekIn = fuse_lseek_in @ 31 { fh, offset, whence, padding, }
        LseekOut = fuse_lseek_out @ 31 { offset, }
        FallocateIn = fuse_fallocate_in @ 31 { fh, offset, length, mode, padding, }
        CopyFileRangeIn = fuse_copy_file_range_in @ 31 {
            fh_in, off_in, nodeid_out, fh_out, off_out, len, flags,
        }
        CopyFileRangeOut = fuse_copy_file_range_out @ 45 { bytes_copied, }
        BmapIn = fuse_bmap_in @ 31 { block, blocksize, padding, }
        BmapOut = fuse_bmap_out @ 31 { block, }
        IoctlIn = fuse_ioctl_in @ 31 { fh, flags, cmd, arg, in_size, out_size, }
        IoctlIovec = fuse_ioctl_iovec @ 31 { base, len, }
        IoctlOut = fuse_ioctl_out @ 31 { result, flags, in_iovs, out_iovs, }
        PollIn = fuse_poll_in @ 31 { fh, kh, flags, events, }
        PollOut = fuse_poll_out @ 31 { revents, padding, }
        FileLock = fuse_file_lock @ 31 { start, end, lock_type = type, pid, }
        LkIn = fuse_lk_in @ 31 { fh, owner, lk, lk_flags, padding, }
        LkOut = fuse_lk_out @ 31 { lk, }
        SetupmappingIn = fuse_setupmapping_in @ 31 { fh, foffset, len, flags, moffset, }
        RemovemappingIn = fuse_removemapping_in @ 31 { count, }
        RemovemappingOne = fuse_removemapping_one @ 31 { moffset, len, }
        ForgetIn = fuse_forget_in @ 31 { nlookup, }
        ForgetOne = fuse_forget_one @ 31 { nodeid, nlookup, }
        BatchForgetIn = fuse_batch_forget_in @ 31 { count, dummy, }
        MknodIn = fuse_mknod_in @ 31 { mode, rdev, umask, padding, }
        MkdirIn = fuse_mkdir_in @ 31 { mode, umask, }
        RenameIn = fuse_rename_in @ 31 { newdir, }
        Rename2In = fuse_rename2_in @ 31 { newdir, flags, padding, }
        LinkIn = fuse_link_in @ 31 { oldnodeid, }
        AccessIn = fuse_access_in @ 31 { mask, padding, }
        InterruptIn = fuse_interrupt_in @ 31 { unique, }
        SyncfsIn = fuse_syncfs_in @ 34 { padding, }
        OpenIn = fuse_open_in @ 33 { flags, open_flags, }
        CreateIn = fuse_create_in @ 33 { flags, mode, umask, open_flags, }
        OpenOut = fuse_open_out @ 31 { fh, open_flags, backing_id @ 40, }
        ReleaseIn = fuse_release_in @ 31 { fh, flags, release_flags, lock_owner, }
        FlushIn = fuse_flush_in @ 31 { fh, unused, padding, lock_owner, }
        FsyncIn = fuse_fsync_in @ 31 { fh, fsync_flags, padding, }
        SetxattrIn = fuse_setxattr_in @ 33 { size, flags, setxattr_flags, padding, }
        GetxattrIn = fuse_getxattr_in @ 31 { size, padding, }
        GetxattrOut = fuse_getxattr_out @ 31 { size, padding, }
        NotifyPollWakeupOut = fuse_notify_poll_wakeup_out @ 31 { kh, }
        NotifyInvalInodeOut = fuse_notify_inval_inode_out @ 31 { ino, off, len, }
        NotifyInvalEntryOut = fuse_notify_inval_entry_out @ 38 { parent, namelen, flags, }
        NotifyDeleteOut = fuse_notify_delete_out @ 31 { parent, child, namelen, padding, }
        NotifyStoreOut = fuse_notify_store_out @ 31 { nodeid, offset, size, padding, }
        NotifyRetrieveOut = fuse_notify_retrieve_out @ 31 {
            notify_unique, nodeid, offset, size, padding,
        }
        NotifyRetrieveIn = fuse_notify_retrieve_in @ 31 {
            dummy1, offset, size, dummy2, dummy3, dummy4,
        }
        NotifyPruneOut = fuse_notify_prune_out @ 45 { count, padding, spare, }
    };
    // Two names of one structure.
    claims.push(Claim {
        c: "sizeof(struct fuse_secctx_header)".to_owned(),
        ours: size_of::<ExtHeader>() as u64,
        since: Since::Minor(36),
    });
    claims
}

/// Flags by their names, which follow a prefix there.
fn flags() -> Vec<Claim> {
    fn of<F: bitflags::Flags<Bits: Into<u64>>>(prefix: &str) -> Vec<Claim> {
        let named = F::FLAGS.iter().filter(|flag| flag.is_named());
        named
            .map(|flag| Claim {
                c: format!("{prefix}{}", flag.name()),
                ours: flag.value().bits().into(),
                since: Since::Defined,
            })
            .collect()
    }
    let mut claims: Vec<_> = [
        of::<InitFlags>("FUSE_"),
        of::<SetattrValid>("FATTR_"),
        of::<OpenOutFlags>("FOPEN_"),
        of::<OpenInFlags>("FUSE_OPEN_"),
        of::<GetattrFlags>("FUSE_GETATTR_"),
        of::<ReadFlags>("FUSE_READ_"),
        of::<WriteFlags>("FUSE_WRITE_"),
        of::<ReleaseFlags>("FUSE_RELEASE_"),
        of::<FsyncFlags>("FUSE_FSYNC_"),
        of::<LkFlags>("FUSE_LK_"),
        of::<IoctlFlags>("FUSE_IOCTL_"),
        of::<PollFlags>("FUSE_POLL_"),
        of::<SetxattrFlags>("FUSE_SETXATTR_"),
        of::<MappingFlags>("FUSE_SETUPMAPPING_FLAG_"),
        of::<AttrFlags>("FUSE_ATTR_"),
        of::<NotifyInvalEntryFlags>("FUSE_"),
    ]
    .into_iter()
    .flatten()
    .collect();
    // Ours cannot begin with a digit.
    for claim in &mut claims {
        claim.c = claim.c.replace("IOCTL_IOCTL_", "IOCTL_");
    }
    claims
}

fn numbers() -> Vec<Claim> {
    let opcodes = Opcode::ALL.iter().map(|opcode| Claim {
        c: format!("FUSE_{}", c_name(&format!("{opcode:?}"))),
        ours: u64::from(opcode.raw()),
        since: Since::Minor(match opcode {
            Opcode::SyncFs => 34,
            Opcode::TmpFile => 37,
            Opcode::Statx => 39,
            Opcode::CopyFileRange64 => 45,
            _ => OLDEST,
        }),
    });
    let codes = NotifyCode::ALL.iter().map(|code| Claim {
        c: match code {
            NotifyCode::InvalInode => "FUSE_NOTIFY_INVAL_INODE".to_owned(),
            NotifyCode::InvalEntry => "FUSE_NOTIFY_INVAL_ENTRY".to_owned(),
            NotifyCode::IncEpoch => "FUSE_NOTIFY_INC_EPOCH".to_owned(),
            code => format!("FUSE_NOTIFY_{}", format!("{code:?}").to_uppercase()),
        },
        ours: u64::try_from(code.raw()).unwrap(),
        since: Since::Minor(match code {
            NotifyCode::Resend => 40,
            NotifyCode::IncEpoch => 44,
            NotifyCode::Prune => 45,
            _ => OLDEST,
        }),
    });
    let others = [
        ("FUSE_KERNEL_VERSION", u64::from(fuse_wire::VERSION_MAJOR)),
        ("FUSE_ROOT_ID", NodeId::ROOT.0),
        ("FUSE_UNIQUE_RESEND", InHeader::UNIQUE_RESEND),
        ("FUSE_INVALID_UIDGID", u64::from(InHeader::INVALID_ID)),
        (
            "FUSE_COMPAT_SETXATTR_IN_SIZE",
            SetxattrIn::COMPAT_SIZE as u64,
        ),
        ("FUSE_COMPAT_INIT_OUT_SIZE", InitOut::COMPAT_SIZE as u64),
        (
            "FUSE_COMPAT_22_INIT_OUT_SIZE",
            InitOut::COMPAT_22_SIZE as u64,
        ),
    ]
    .map(|(c, ours)| Claim {
        c: c.to_owned(),
        ours,
        since: Since::Defined,
    });
    opcodes.chain(codes).chain(others).collect()
}

/// The name that `linux/fuse.h` gives to an opcode.
fn c_name(ours: &str) -> String {
    match ours {
        "NotifyReply" => "NOTIFY_REPLY".to_owned(),
        "BatchForget" => "BATCH_FORGET".to_owned(),
        "CopyFileRange" => "COPY_FILE_RANGE".to_owned(),
        "CopyFileRange64" => "COPY_FILE_RANGE_64".to_owned(),
        one_word => one_word.to_uppercase(),
    }
}
