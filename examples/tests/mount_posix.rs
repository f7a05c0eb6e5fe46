//! Programs that test filesystems, run on a directory that `mount` has mounted.
//!
//! They need root, `/dev/fuse`, a C compiler, and the programs that `.ci/install` installs.

#![forbid(unsafe_code)]

mod support;

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{env, fs};

use support::Mount;

const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");

/// A mounted directory, and a place for what tests write beside it.
struct Bench {
    // Unmounted before it is removed.
    mount: Mount,
    directory: tempfile::TempDir,
    /// Where in the mount there is room for tests.
    root: PathBuf,
}

impl Bench {
    fn new(options: &[&str]) -> Self {
        Self::of(|source| source.into(), "", options)
    }

    /// Mounts what `source` says of the directory that it is given, to test at `root` in there.
    fn of(source: impl FnOnce(&Path) -> OsString, root: &str, options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Other users have to get there.
        let open = |path: &Path| fs::set_permissions(path, PermissionsExt::from_mode(0o755));
        open(directory.path()).unwrap();
        let host = directory.path().join("source");
        fs::create_dir(&host).unwrap();
        open(&host).unwrap();
        println!("{options:?}");
        let mount = Mount::start(source(&host), directory.path().join("mnt"), options);
        let root = mount.path().join(root);
        Self {
            mount,
            directory,
            root,
        }
    }

    /// A place that is not mounted.
    fn outside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Unmounts, and checks that nothing was worth a warning.
    fn end(self) {
        let Self {
            mount, directory, ..
        } = self;
        mount.signal("TERM");
        let log = mount.log();
        assert!(mount.wait().success());
        for level in ["WARN", "ERROR"] {
            assert!(!log.contains(level), "{log}");
        }
        drop(directory);
    }
}

#[test]
#[ignore = "needs pjdfstest and root; .ci/run runs it"]
fn pjdfstest_with_cache_never() {
    pjdfstest(&["--cache=never"]);
}

#[test]
#[ignore = "needs pjdfstest and root; .ci/run runs it"]
fn pjdfstest_with_cache_auto() {
    pjdfstest(&["--cache=auto"]);
}

#[test]
#[ignore = "needs pjdfstest and root; .ci/run runs it"]
fn pjdfstest_with_cache_always() {
    pjdfstest(&["--cache=always"]);
}

#[test]
#[ignore = "needs pjdfstest and root; .ci/run runs it"]
fn pjdfstest_with_no_descriptor_kept() {
    for handles in ["prefer", "never"] {
        let handles = format!("--inode-file-handles={handles}");
        pjdfstest(&["--cache=never", "--max-open-inodes=0", &handles]);
    }
}

#[test]
#[ignore = "needs pjdfstest and root; .ci/run runs it"]
fn pjdfstest_with_much_enabled() {
    pjdfstest(&["--cache=auto", "--writeback", "--xattr", "--posix-acl"]);
}

#[test]
#[ignore = "needs pjdfstest and root; .ci/run runs it"]
fn pjdfstest_in_an_export() {
    let named = |host: &Path| {
        let mut source = OsString::from("data=");
        source.push(host);
        source
    };
    pjdfstest_on(Bench::of(named, "data", &["--xattr"]));
}

fn pjdfstest(options: &[&str]) {
    pjdfstest_on(Bench::new(options));
}

/// All of its tests pass but those that are listed.
fn pjdfstest_on(bench: Bench) {
    let other = Mount::start("memory:", bench.outside("other"), &[]);
    let config = fs::read_to_string(format!("{HERE}/mount/pjdfstest.toml")).unwrap();
    let remounting = config.replace("allow_remount = false", "allow_remount = true");
    assert_ne!(config, remounting);
    let run = |name: &str, config: &str, tests: &[&str]| {
        let path = bench.outside(name);
        fs::write(&path, config).unwrap();
        let mut command = Command::new("pjdfstest");
        command.args(["-c".as_ref(), path.as_path()]);
        command.args(["-p".as_ref(), bench.root.as_path()]);
        command.args(["-s".as_ref(), other.path()]);
        command.env("PATH", path_to_plain_mount(&bench)).args(tests);
        let output = command.output().expect("pjdfstest is installed");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let all = run("all.toml", &config, &[]);
    let remounts = run("remounts.toml", &remounting, &["erofs"]);
    support::pjdfstest::assert_passed(&all, &remounts);
    bench.end();
}

/// `PATH` with a `mount` in front that calls no helper of the filesystem's type: that of libfuse,
/// where it is installed, does not remount.
fn path_to_plain_mount(bench: &Bench) -> OsString {
    let programs = bench.outside("programs");
    if !programs.exists() {
        fs::create_dir(&programs).unwrap();
        let script = programs.join("mount");
        fs::write(&script, "#!/bin/sh\nexec /bin/mount -i \"$@\"\n").unwrap();
        fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let rest = env::var_os("PATH").unwrap_or_default();
    env::join_paths([programs].into_iter().chain(env::split_paths(&rest))).unwrap()
}

#[test]
#[ignore = "needs fsx and root; .ci/run runs it"]
fn fsx_with_cache_never() {
    fsx(&["--cache=never"], Mappings::Refused);
    fsx(&["--cache=never", "--allow-mmap"], Mappings::Allowed);
}

#[test]
#[ignore = "needs fsx and root; .ci/run runs it"]
fn fsx_with_cache_auto() {
    fsx(&["--cache=auto"], Mappings::Allowed);
}

#[test]
#[ignore = "needs fsx and root; .ci/run runs it"]
fn fsx_with_cache_always() {
    fsx(&["--cache=always"], Mappings::Allowed);
}

#[test]
#[ignore = "needs fsx and root; .ci/run runs it"]
fn fsx_with_cache_metadata() {
    fsx(&["--cache=metadata"], Mappings::Refused);
    fsx(&["--cache=metadata", "--allow-mmap"], Mappings::Allowed);
}

#[test]
#[ignore = "needs fsx and root; .ci/run runs it"]
fn fsx_with_writeback() {
    fsx(&["--cache=auto", "--writeback"], Mappings::Allowed);
    fsx(&["--cache=always", "--writeback"], Mappings::Allowed);
}

/// Whether files can be mapped shared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mappings {
    Allowed,
    Refused,
}

/// Random operations on a file, buffered, mapped and with O_DIRECT, always read what was written.
fn fsx(options: &[&str], mappings: Mappings) {
    let bench = Bench::new(options);
    Fsx::default().assert_passes(&bench);
    let mapped = Fsx {
        mapped: 5,
        ..Fsx::default()
    };
    match mappings {
        Mappings::Allowed => mapped.assert_passes(&bench),
        Mappings::Refused => {
            let output = mapped.run(&bench);
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success(), "a shared mapping was not refused");
            assert!(text.contains("ENODEV"), "{text}");
        }
    }
    Fsx {
        direct: true,
        ..Fsx::default()
    }
    .assert_passes(&bench);
    bench.end();

    // O_DIRECT on the host, too, which wants everything aligned.
    let bench = Bench::new(&[options, &["--allow-direct-io"]].concat());
    Fsx {
        direct: true,
        align: 4096,
        ..Fsx::default()
    }
    .assert_passes(&bench);
    bench.end();
}

/// A run of fsx.
struct Fsx {
    /// How often it goes through shared mappings, as its weights count.
    mapped: u32,
    /// Whether the file is opened with O_DIRECT.
    direct: bool,
    /// What offsets and lengths are multiples of, in bytes.
    align: u32,
}

impl Default for Fsx {
    fn default() -> Self {
        Self {
            mapped: 0,
            direct: false,
            align: 1,
        }
    }
}

impl Fsx {
    fn assert_passes(&self, bench: &Bench) {
        let output = self.run(bench);
        assert!(
            output.status.success(),
            "{output:#?}\n{}",
            bench.mount.log()
        );
    }

    fn run(&self, bench: &Bench) -> Output {
        let config = bench.outside("fsx.toml");
        fs::write(&config, self.config()).unwrap();
        let file = bench.root.join("file");
        let operations = env::var("FSX_OPERATIONS").unwrap_or_else(|_| "2000".to_owned());
        let mut command = Command::new("fsx");
        command.args(["-f".as_ref(), config.as_path()]);
        command.args(["-q", "-N", &operations, "-P"]);
        command.arg(bench.directory.path()).arg(&file);
        if self.direct {
            command.env("LD_PRELOAD", o_direct(bench));
        }
        let output = command
            .stdin(Stdio::null())
            .output()
            .expect("fsx is installed");
        fs::remove_file(file).unwrap();
        output
    }

    fn config(&self) -> String {
        let Self { mapped, align, .. } = self;
        // With an alignment, fsx allocates ranges of no bytes, which is EINVAL everywhere.
        let allocate = if *align == 1 { 2 } else { 0 };
        format!(
            "flen = 1048576
            [opsize]
            max = 131072
            align = {align}
            [weights]
            close_open = 1
            invalidate = {mapped}
            mapread = {mapped}
            mapwrite = {mapped}
            read = 10
            write = 10
            truncate = 3
            fsync = 0.3
            fdatasync = 0.3
            posix_fallocate = {allocate}
            punch_hole = 2
            sendfile = 3
            posix_fadvise = 1
            copy_file_range = 3"
        )
    }
}

/// What makes a program open its files with O_DIRECT.
fn o_direct(bench: &Bench) -> PathBuf {
    let library = bench.outside("o_direct.so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(format!("{HERE}/guest/o_direct.c"))
        .status();
    assert!(built.is_ok_and(|status| status.success()), "cc failed");
    library
}
