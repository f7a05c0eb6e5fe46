//! Random sequences of operations have the same results through the share as on the host itself,
//! error numbers included, and leave the same files behind.
//!
//! PROPTEST_CASES makes it more of them.
#![allow(unreachable_pub, reason = "modules of one test")]

mod answer;
#[path = "../common/mod.rs"]
mod common;
mod guest;
mod host;
mod op;
mod tree;

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use fuse_fs::Errno;
use fuse_fs::flags::InitFlags;
use passthrough_fs::{
    Config, Feature, InodeFileHandles, Migration, MigrationErrors, PassthroughFs, Xattr,
};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use rustix::fs::Mode;
use rustix::process::{Gid, Uid};
use tempfile::TempDir;

use guest::Guest;
use host::Host;
use op::{Acls, DIRS, FILES, NODES, Op};

/// Sequences that are tried, unless PROPTEST_CASES says otherwise.
const CASES: u32 = 48;
/// Most operations of a sequence.
const LEN: usize = 120;
/// An ordinary user ("nobody").
const NOBODY: u32 = 65534;

/// As whom a sequence is run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum User {
    /// Whoever runs the test.
    Self_,
    Nobody,
}

#[test]
fn a_share_behaves_as_the_host() {
    check(&std::env::temp_dir(), User::Self_, |config| config);
}

#[test]
fn a_share_in_memory_behaves_as_the_host() {
    check(Path::new("/dev/shm"), User::Self_, |config| config);
}

#[test]
fn a_share_with_acls_behaves_as_the_host() {
    check(&std::env::temp_dir(), User::Self_, |config| {
        config.posix_acl(Feature::Always)
    });
}

#[test]
fn a_share_behaves_as_the_host_for_an_ordinary_user() {
    // Where an ordinary user runs the tests, the first was this one.
    if common::is_root("a_share_behaves_as_the_host_for_an_ordinary_user") {
        check(&std::env::temp_dir(), User::Nobody, |config| config);
    }
}

/// Whether the guest goes on with another share of the same directory now and then.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moves {
    Never,
    /// Each time that so many operations were done.
    Every(usize),
}

#[test]
fn a_guest_that_is_moved_notices_nothing() {
    check_moved(
        "a_guest_that_is_moved_notices_nothing",
        &std::env::temp_dir(),
        |config| config,
    );
}

#[test]
fn a_guest_in_memory_that_is_moved_notices_nothing() {
    let name = "a_guest_in_memory_that_is_moved_notices_nothing";
    check_moved(name, Path::new("/dev/shm"), |config| config);
}

#[test]
fn a_guest_whose_inodes_are_opened_by_name_again_is_moved() {
    let name = "a_guest_whose_inodes_are_opened_by_name_again_is_moved";
    check_moved(name, &std::env::temp_dir(), by_name);
}

/// An ordinary user could not open a file for writing again that may only be read by now.
fn check_moved(name: &str, place: &Path, configure: fn(Config) -> Config) {
    if common::is_root(name) {
        check_with(place, User::Self_, configure, Moves::Every(7));
    }
}

fn check(place: &Path, user: User, configure: fn(Config) -> Config) {
    check_with(place, user, configure, Moves::Never);
}

fn check_with(place: &Path, user: User, configure: fn(Config) -> Config, moves: Moves) {
    // On the host, as in the share, modes are exact.
    rustix::process::umask(Mode::empty());
    let mut config = ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 4000,
        ..ProptestConfig::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    let acls = match configure(Config::new("/")).posix_acl {
        Feature::Never => Acls::Hidden,
        Feature::Auto | Feature::Always => Acls::Shared,
    };
    let mut runner = TestRunner::new(config);
    // A directory that this user may not search hides what is in it from those who open it again by
    // its name.
    let searchable = configure(Config::new("/")).max_open_inodes.is_some();
    let checked = runner.run(&op::ops(LEN, acls), |mut ops| {
        if searchable {
            ops.iter_mut().for_each(Op::keep_searchable);
        }
        compare(place, user, configure, moves, &ops)
    });
    if let Err(error) = checked {
        panic!("{error}");
    }
}

#[test]
fn a_share_with_few_descriptors_behaves_as_the_host() {
    check(&std::env::temp_dir(), User::Self_, |config| {
        config.max_open_inodes(2)
    });
}

#[test]
fn a_share_that_opens_inodes_by_name_again_behaves_as_the_host() {
    check(&std::env::temp_dir(), User::Self_, by_name);
}

#[test]
fn a_share_in_memory_that_opens_inodes_by_name_again_behaves_as_the_host() {
    check(Path::new("/dev/shm"), User::Self_, by_name);
}

#[test]
fn a_share_that_opens_inodes_by_name_again_behaves_as_the_host_for_an_ordinary_user() {
    let name = "a_share_that_opens_inodes_by_name_again_behaves_as_the_host_for_an_ordinary_user";
    if common::is_root(name) {
        check(&std::env::temp_dir(), User::Nobody, by_name);
    }
}

fn by_name(config: Config) -> Config {
    let config = config.max_open_inodes(2);
    config.inode_file_handles(InodeFileHandles::Never)
}

/// Runs `ops` on a fresh share and on a fresh directory beside it.
fn compare(
    place: &Path,
    user: User,
    configure: fn(Config) -> Config,
    moves: Moves,
    ops: &[Op],
) -> Result<(), TestCaseError> {
    let outer = TempDir::with_prefix_in("model-", place).unwrap();
    std::fs::set_permissions(outer.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let [shared, bare] = ["shared", "bare"].map(|name| outer.path().join(name));
    for dir in [&shared, &bare] {
        std::fs::create_dir(dir).unwrap();
        if user == User::Nobody {
            chown(dir, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
    // A thread of its own: the share changes those that call it.
    let same = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                if user == User::Nobody {
                    become_nobody();
                }
                compare_answers(|| configure(Config::new(&shared)), moves, &bare, ops)
            })
            .join()
    });
    let same = same.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    // Also makes it possible to remove them.
    let (shared, bare) = (tree::read(&shared), tree::read(&bare));
    same?;
    prop_assert_eq!(shared, bare);
    Ok(())
}

fn compare_answers(
    config: impl Fn() -> Config,
    moves: Moves,
    bare: &Path,
    ops: &[Op],
) -> Result<(), TestCaseError> {
    let few = config().max_open_inodes.is_some();
    let share = || {
        let losing = Migration::new().on_error(MigrationErrors::GuestError);
        let fs = PassthroughFs::new(config().xattr(Xattr::On).migration(losing)).unwrap();
        common::begin(&fs, InitFlags::all()).unwrap();
        fs
    };
    let (mut guest, mut host) = (Guest::new(share()), Host::new(bare));
    let (prelude, last_look) = (op::prelude(), last_look());
    for (number, op) in prelude.iter().chain(ops).chain(&last_look).enumerate() {
        if let Moves::Every(count) = moves
            && number % count == count - 1
        {
            guest.move_to(share());
            // What has no name is where it was, and not where the guest is now.
            host.removed().into_iter().for_each(|slot| {
                guest.lose(slot);
                host.lose(slot);
            });
        }
        let used = op.nodes().into_iter();
        let lost: Vec<usize> = used.filter(|&slot| host.is_lost(slot)).collect();
        let (ours, theirs) = (guest.apply(op), host.apply(op));
        if few && ours == Err(Errno::ESTALE.raw()) && !lost.is_empty() {
            // It had given its descriptor back when its last name went. Both sides lose it.
            let drops = lost.into_iter().map(|node| Op::Drop { node });
            for op in drops.chain(op.undo()) {
                guest.apply(&op).and(host.apply(&op)).unwrap();
            }
            continue;
        }
        prop_assert_eq!(
            ours,
            theirs,
            "share and host, at operation {}, {:?}",
            number,
            op
        );
    }
    Ok(())
}

/// At the end everything that is held is still what it is on the host.
fn last_look() -> Vec<Op> {
    let nodes = (0..NODES).map(|node| Op::GetAttr { node });
    let files = (0..FILES).map(|file| Op::Read {
        file,
        offset: 0,
        size: 100_000,
    });
    let dirs = (0..DIRS).map(|dir| Op::List {
        dir,
        size: 4096,
        plus: true,
    });
    nodes.chain(files).chain(dirs).collect()
}

/// Makes the calling thread, and only it, an ordinary user.
fn become_nobody() {
    rustix::thread::set_thread_groups(&[]).unwrap();
    let gid = Gid::from_raw(NOBODY);
    rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
    let uid = Uid::from_raw(NOBODY);
    rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
}
