//! Programs that test filesystems, run by a Linux guest on a share of our daemon.
//!
//! Needs what `guest.rs` needs and the programs that `.ci/install` installs.

#![forbid(unsafe_code)]

mod support;

use std::time::Duration;
use std::{env, fs};

use support::Host;
use testing::emulated;

/// Longer than a slow machine needs, short enough that a hang does not go on for ever.
const PATIENCE: Duration = Duration::from_secs(1800);

#[test]
#[ignore = "boots QEMU; .ci/run runs it"]
fn pjdfstest_with_cache_never() {
    pjdfstest("never");
}

#[test]
#[ignore = "boots QEMU; .ci/run runs it"]
fn pjdfstest_with_cache_auto() {
    pjdfstest("auto");
}

#[test]
#[ignore = "boots QEMU; .ci/run runs it"]
fn pjdfstest_with_cache_always() {
    pjdfstest("always");
}

/// All of its tests pass: those that remount the share in a run of their own, which the other skips.
fn pjdfstest(cache: &str) {
    emulated(|| {
        let mut host = Host::new(cache, &[]);
        let said = host.boot("pjdfstest.sh", &[]).wait(PATIENCE);
        println!("cache={cache}:\n{}", said.join("\n"));

        let log = |name| fs::read_to_string(host.share().join(name)).expect("a log of pjdfstest");
        support::pjdfstest::assert_passed(&log("all.log"), &log("remounts.log"));
        host.end();
    });
}

#[test]
#[ignore = "boots QEMU; .ci/run runs it"]
fn fsx_with_cache_never() {
    fsx("never", &[]);
}

#[test]
#[ignore = "boots QEMU; .ci/run runs it"]
fn fsx_with_cache_auto() {
    fsx("auto", &[]);
}

#[test]
#[ignore = "boots QEMU; .ci/run runs it"]
fn fsx_with_cache_always() {
    fsx("always", &[]);
}

#[test]
#[ignore = "boots QEMU; .ci/run runs it"]
fn fsx_maps_what_is_not_cached() {
    fsx("never", &["--allow-mmap"]);
}

#[test]
#[ignore = "boots QEMU; .ci/run runs it"]
fn fsx_with_cached_writes() {
    fsx("auto", &["--writeback"]);
}

#[test]
#[ignore = "boots QEMU; .ci/run runs it"]
fn fsx_with_cached_writes_and_cache_always() {
    fsx("always", &["--writeback"]);
}

/// Random operations on a file, in several ways, read what was written.
fn fsx(cache: &str, options: &[&str]) {
    emulated(|| {
        let operations = env::var("FSX_OPERATIONS").unwrap_or_else(|_| "2000".to_owned());
        let mut host = Host::new(cache, options);
        // What is not cached is not mapped.
        let mappings = cache != "never" || options.contains(&"--allow-mmap");
        let environment = [
            format!("FSX_OPERATIONS={operations}"),
            format!(
                "FSX_SHARED_MAPPINGS={}",
                if mappings { "yes" } else { "no" }
            ),
        ];
        let environment: Vec<_> = environment.iter().map(String::as_str).collect();
        let said = host.boot("fsx.sh", &environment).wait(PATIENCE);
        println!("cache={cache} {options:?}:\n{}", said.join("\n"));
        host.end();
    });
}
