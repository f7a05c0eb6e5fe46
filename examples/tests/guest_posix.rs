//! Programs that test filesystems, run by a Linux guest on a share of our daemon.
//!
//! Needs what `guest.rs` needs and the programs that `.ci/install` installs.

#![forbid(unsafe_code)]

mod support;

use std::path::Path;
use std::time::Duration;
use std::{env, fs};

use support::Host;

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
    /// In version 0.2.2, on Linux.
    const TESTS: usize = 398;

    let mut host = Host::new(cache, &[]);
    let said = host.boot("pjdfstest.sh", &[]).wait(PATIENCE);
    println!("cache={cache}:\n{}", said.join("\n"));

    let skipped = include_str!("guest/pjdfstest.skipped");
    print!("{skipped}");
    let skipped = skipped.lines().filter(|line| !line.starts_with('#'));
    let skipped: Vec<_> = skipped.filter_map(|line| line.split_once(": ")).collect();
    let mut all = Summary::read(&host.share().join("all.log"));
    let remounts = Summary::read(&host.share().join("remounts.log"));
    assert_eq!(remounts.skipped, [""; 0]);
    // These are in the other run.
    all.skipped.retain(|name| !name.contains("erofs"));
    let names: Vec<_> = skipped.iter().map(|(name, _)| *name).collect();
    assert_eq!(all.skipped, names);
    assert_eq!(all.passed + remounts.passed + skipped.len(), TESTS);
    host.end();
}

/// What pjdfstest reported.
struct Summary {
    passed: usize,
    skipped: Vec<String>,
}

impl Summary {
    /// # Panics
    /// Where a test failed.
    fn read(log: &Path) -> Self {
        let text = fs::read_to_string(log).expect("a log of pjdfstest");
        let lines = |end| {
            text.lines()
                .filter_map(move |line: &str| line.strip_suffix(end))
        };
        let names = |end| lines(end).map(|line| line.trim_end().to_owned());
        let summary = Self {
            passed: names(" ok").count(),
            skipped: names(" skipped").collect(),
        };
        let told = text.lines().find(|line| line.starts_with("Summary: "));
        println!("{}: {}", log.display(), told.unwrap_or("no summary"));
        let (passed, skipped) = (summary.passed, summary.skipped.len());
        let wanted = format!(
            "Summary: 0 failed, {skipped} skipped, {passed} passed, 0 expected failures, {} total",
            passed + skipped
        );
        assert_eq!(told, Some(wanted.as_str()));
        summary
    }
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

/// Random operations on a file, in several ways, read what was written.
fn fsx(cache: &str, options: &[&str]) {
    let operations = env::var("FSX_OPERATIONS").unwrap_or_else(|_| "2000".to_owned());
    let mut host = Host::new(cache, options);
    let environment = [
        format!("FSX_OPERATIONS={operations}"),
        format!(
            "FSX_SHARED_MAPPINGS={}",
            if cache == "never" { "no" } else { "yes" }
        ),
    ];
    let environment: Vec<_> = environment.iter().map(String::as_str).collect();
    let said = host.boot("fsx.sh", &environment).wait(PATIENCE);
    println!("cache={cache} {options:?}:\n{}", said.join("\n"));
    host.end();
}
