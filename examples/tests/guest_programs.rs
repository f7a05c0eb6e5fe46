//! Programs that ask much of a filesystem, run by a Linux guest on a share of our daemon.
//!
//! Needs what `guest.rs` needs and the programs that `.ci/install` installs.

#![forbid(unsafe_code)]

mod support;

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;
use std::{env, fs};

use support::{Host, run};
use testing::emulated;

/// Longer than a slow machine needs, short enough that a hang does not go on for ever.
const PATIENCE: Duration = Duration::from_secs(1800);

#[test]
#[ignore = "boots QEMU; .ci/run runs it"]
fn stress_ng_verifies() {
    emulated(|| {
        let seconds = env::var("STRESS_SECONDS").unwrap_or_else(|_| "1".to_owned());
        let mut host = Host::new("auto", &["--xattr"]);
        let environment = format!("SECONDS_EACH={seconds}");
        report(&host.boot("stress.sh", &[&environment]).wait(PATIENCE));
        let log =
            fs::read_to_string(host.share().join("stress.log")).expect("the log of stress-ng");
        println!("{log}");
        assert!(log.contains("successful run completed"));
        assert!(!log.contains("fail:"));
        host.end();
    });
}

#[test]
#[ignore = "boots QEMU; .ci/run runs it"]
fn two_processes_write_a_database_in_wal_mode() {
    sqlite("auto", &[], true);
}

#[test]
#[ignore = "boots QEMU; .ci/run runs it"]
fn a_database_without_shared_mappings_is_refused_wal_mode() {
    sqlite("never", &[], false);
}

#[test]
#[ignore = "boots QEMU; .ci/run runs it"]
fn two_processes_map_what_is_not_cached_in_wal_mode() {
    sqlite("never", &["--allow-mmap"], true);
}

/// Two processes of a guest write one database; the host finds all of it.
fn sqlite(cache: &str, options: &[&str], mappings: bool) {
    emulated(|| {
        let mut host = Host::new(cache, options);
        let environment = if mappings {
            "MAPPINGS=yes"
        } else {
            "MAPPINGS=no"
        };
        println!("cache={cache} {options:?}");
        report(&host.boot("sqlite.sh", &[environment]).wait(PATIENCE));
        let sql = |statement| run(&host.share(), "sqlite3", &["database.sqlite", statement]);
        assert_eq!(sql("PRAGMA integrity_check"), "ok\n");
        assert_eq!(
            sql("SELECT who, count(*), sum(n) FROM entry GROUP BY who"),
            "a|150|11325\nb|150|11325\n"
        );
        assert_eq!(
            sql("PRAGMA journal_mode"),
            if mappings { "wal\n" } else { "delete\n" }
        );
        host.end();
    });
}

#[test]
#[ignore = "boots QEMU; .ci/run runs it"]
fn overlay_has_its_upper_directory_on_a_share() {
    emulated(|| {
        // Overlayfs keeps its notes in trusted attributes.
        let mut host = Host::new("auto", &["--xattr"]);
        let lower = host.directory().join("lower");
        make_lower(&lower);
        let environment = format!("LOWER={}", lower.display());
        report(&host.boot("overlay.sh", &[&environment]).wait(PATIENCE));

        let upper = host.share().join("upper");
        assert_eq!(run(&upper, "./program", &[]), "one changed\n");
        for whiteout in ["removed/file", "renamed", "moved"] {
            let metadata = fs::symlink_metadata(upper.join(whiteout)).expect("a whiteout");
            assert!(metadata.file_type().is_char_device(), "{whiteout}");
            assert_eq!(metadata.rdev(), 0, "{whiteout}");
        }
        assert!(!upper.join("removed/other").exists(), "it was not touched");
        let attribute = |name, file| run(&upper, "getfattr", &["--only-values", "-n", name, file]);
        assert_eq!(attribute("trusted.overlay.opaque", "replaced"), "y");
        assert_eq!(
            attribute("trusted.overlay.redirect", "elsewhere"),
            "renamed"
        );
        assert_eq!(attribute("user.test", "mode"), "value");
        let mode = fs::metadata(upper.join("mode")).expect("a file of which the mode was changed");
        assert_eq!(
            (mode.mode() & 0o7777, mode.uid(), mode.gid()),
            (0o600, 1234, 5678)
        );
        host.end();
    });
}

/// A small program in C, and what to rename and remove.
fn make_lower(lower: &Path) {
    let makefile = "program: one.o two.o main.o\n\t$(CC) -o $@ $^\n";
    let main = "#include <stdio.h>\nconst char *one(void), *two(void);\n\
                int main(void) { return printf(\"%s %s\\n\", one(), two()) < 0; }\n";
    for (name, content) in [
        ("Makefile", makefile),
        ("main.c", main),
        ("one.c", "const char *one(void) { return \"one\"; }\n"),
        ("two.c", "const char *two(void) { return \"two\"; }\n"),
        ("removed/file", ""),
        ("removed/other", ""),
        ("replaced/old", ""),
        ("renamed/deep/file", "deep\n"),
        ("moved", "moved\n"),
        ("mode", "mode\n"),
    ] {
        let path = lower.join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("the directory");
        fs::write(path, content).expect("a file");
    }
}

#[test]
#[ignore = "boots QEMU; .ci/run runs it"]
fn two_guests_lock_one_directory() {
    emulated(|| {
        let options = ["--posix-lock", "--flock"];
        let mut one = Host::new("never", &options);
        let mut other = Host::beside(&one, "never", &options);
        let first = one.boot("locks.sh", &["ROLE=first"]);
        let second = other.boot("locks.sh", &["ROLE=second"]);
        assert!(
            first.says("guest: holding", PATIENCE),
            "the first guest:\n{}\nthe second:\n{}",
            first.console().tail(),
            second.console().tail()
        );
        first.kill();
        report(&second.wait(PATIENCE));
        for kind in ["flock", "posix", "ofd"] {
            let count = one.share().join(format!("{kind}.count"));
            assert_eq!(fs::read_to_string(count).expect("a count"), "200\n");
        }
        other.end();
        one.end();
    });
}

#[test]
#[ignore = "boots QEMU; .ci/run runs it"]
fn more_files_than_descriptors() {
    many_files(0);
}

#[test]
#[ignore = "boots QEMU; .ci/run runs it"]
fn more_files_than_an_ordinary_user_has_descriptors() {
    many_files(65534);
}

/// A guest walks a tree of more files than the daemon, which runs as `user`, may open.
fn many_files(user: u32) {
    emulated(|| {
        let files = env::var("MANY_FILES").unwrap_or_else(|_| "5000".to_owned());
        let files: usize = files.parse().expect("MANY_FILES is a number");
        let mut host = Host::limited(user, "auto", &[]);
        for directory in 0..files / 1000 {
            let directory = host.share().join(format!("tree/d{directory}"));
            fs::create_dir_all(&directory).expect("a directory");
            for file in 0..1000 {
                fs::write(directory.join(format!("f{file}")), "x".repeat(file % 7))
                    .expect("a file");
            }
        }
        run(&host.share(), "chown", &["-R", &user.to_string(), "tree"]);
        let listing = "cd tree && find . -type f -printf '%i %m %s %T@ %p\n' | sort | md5sum";
        let sum = run(&host.share(), "sh", &["-c", listing]);
        let sum = sum.split(' ').next().expect("a sum");
        let environment = [format!("FILES={files}"), format!("SUM={sum}")];
        let environment: Vec<_> = environment.iter().map(String::as_str).collect();
        println!("{files} files, as user {user}");
        report(&host.boot("many_files.sh", &environment).wait(PATIENCE));
        host.end();
    });
}

fn report(said: &[String]) {
    println!("{}", said.join("\n"));
}
