//! A Linux guest whose root, and a second share that it works on, are served by our daemon.
//!
//! Needs QEMU (10 or newer) and Debian's cloud kernel (6.12 or newer), and takes minutes, because
//! the guest is emulated: `.ci/run` installs what is needed and runs this.

#![forbid(unsafe_code)]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use support::{Host, run};
use testing::emulated;

/// Longer than a slow machine needs, short enough that a hang does not go on for ever.
const PATIENCE: Duration = Duration::from_secs(900);

#[test]
#[ignore = "boots QEMU; .ci/run runs it"]
fn everyday_work_with_cache_never() {
    everyday_work("never");
}

#[test]
#[ignore = "boots QEMU; .ci/run runs it"]
fn everyday_work_with_cache_auto() {
    everyday_work("auto");
}

#[test]
#[ignore = "boots QEMU; .ci/run runs it"]
fn daemons_outlive_a_killed_vmm() {
    emulated(|| {
        let mut host = Host::new("auto", &[]);
        let guest = host.boot("interrupted.sh", &[]);
        guest.wait_for("guest: writing", PATIENCE);
        guest.kill();

        let said = host.boot("interrupted.sh", &[]).wait(PATIENCE);
        assert!(!said.is_empty(), "the second boot did nothing");
        assert_eq!(
            fs::read_to_string(host.share().join("second_boot")).expect("the second boot's file"),
            "fine\n"
        );
        host.end();
    });
}

/// Two boots of one machine with a reset in between, all with the same daemons.
fn everyday_work(cache: &str) {
    emulated(|| {
        let mut host = Host::new(cache, &[]);
        make_repository(&host.share().join("source"));
        let said = host.boot("workloads.sh", &[]).wait(PATIENCE);
        println!("cache={cache}:\n{}", said.join("\n"));

        let share = host.share();
        assert!(share.join("second_boot").exists(), "it booted once only");
        run(&share, "md5sum", &["--quiet", "-c", "big_file.md5"]);
        run(
            &share.join("unpacked/clone"),
            "md5sum",
            &["--quiet", "-c", "../../clone.md5"],
        );
        run(&share, "diff", &["-r", "clone", "unpacked/clone"]);
        run(
            &share.join("clone"),
            "git",
            &["-c", "safe.directory=*", "fsck", "--full", "--strict"],
        );
        let check = run(
            &share,
            "sqlite3",
            &["database.sqlite", "PRAGMA integrity_check"],
        );
        assert_eq!(check, "ok\n");
        assert_tree(&share.join("tree"));
        assert_metadata(&share.join("metadata"));
        host.end();
    });
}

/// What is left of the 5,000 files: two in each of 50 directories.
fn assert_tree(tree: &Path) {
    for directory in 0..50 {
        let path = tree.join(format!("d{directory}"));
        let mut names: Vec<_> = fs::read_dir(&path)
            .expect("a directory of the tree")
            .map(|entry| entry.expect("its entry").file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["renamed-f0", "renamed-f50"]);
        let content = fs::read_to_string(path.join("renamed-f50")).expect("a file of the tree");
        assert_eq!(content, format!("file 50 of {directory}\n"));
    }
}

fn assert_metadata(directory: &Path) {
    let of = |name: &str| fs::symlink_metadata(directory.join(name)).expect("what the guest made");
    let file = of("file");
    assert_eq!(file.permissions().mode() & 0o7777, 0o4751);
    assert_eq!((file.uid(), file.gid(), file.nlink()), (1234, 5678, 2));
    assert_eq!(
        (file.mtime(), file.mtime_nsec()),
        (981_173_106, 123_456_789)
    );
    assert_eq!(of("hard").ino(), file.ino());
    assert_eq!(of("sparse").len(), 1_000_000);
    assert_eq!(of("sparse").blocks(), 0);
    assert!(of("reserved").blocks() * 512 >= 65_536);
    let target = fs::read_link(directory.join("soft")).expect("the symbolic link");
    assert_eq!(target, Path::new("../somewhere/else"));
}

/// Two commits of a few hundred files.
fn make_repository(path: &Path) {
    fs::create_dir(path).expect("the directory of the repository");
    run(path, "git", &["init", "--quiet"]);
    for directory in 0..20 {
        let directory = path.join(format!("d{directory}"));
        fs::create_dir(&directory).expect("a directory");
        for file in 0..20 {
            let content = format!("{}/{file}\n", directory.display()).repeat(file * 10);
            fs::write(directory.join(format!("f{file}")), content).expect("a file");
        }
        run(path, "git", &["add", "."]);
        let identity = ["-c", "user.name=host", "-c", "user.email=host@example.org"];
        let commit = ["commit", "--quiet", "-m", "From the host"];
        run(path, "git", &[&identity[..], &commit[..]].concat());
    }
}
