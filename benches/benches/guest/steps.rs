/// Something that the guest does, and is timed at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    /// What has to be done before, in words of `workload.sh`.
    pub(crate) prepare: &'static str,
    /// What is timed.
    pub(crate) run: &'static str,
}

/// All of them. Each finds what it needs, whichever of the others were done before.
pub(crate) const STEPS: [Step; 20] = [
    step("seq read 1M", "cold", "io read 1M 1 0 128M"),
    step("seq read 1M direct", "cold", "io read 1M 1 1 128M"),
    step("seq write 1M", "cold", "io write 1M 1 0 128M"),
    step("seq write 1M direct", "cold", "io write 1M 1 1 128M"),
    step("rand read 4k", "cold", "io randread 4k 1 0 8M"),
    step("rand read 4k direct", "cold", "io randread 4k 1 1 8M"),
    step("rand read 4k direct x16", "cold", "io randread 4k 16 1 16M"),
    step("rand write 4k", "cold", "io randwrite 4k 1 0 8M"),
    step("rand write 4k direct", "cold", "io randwrite 4k 1 1 8M"),
    step(
        "rand write 4k direct x16",
        "cold",
        "io randwrite 4k 16 1 16M",
    ),
    step("tar x", "without_tree", "unpack"),
    step("find, cold", "unpacked_cold", "list_all"),
    step("du, cold", "unpacked_cold", "disk_usage"),
    step("du, warm", "unpacked_warm", "disk_usage"),
    step("grep -r, cold", "unpacked_cold", "search"),
    step("grep -r, warm", "unpacked_warm", "search"),
    step("git status, cold", "status_cold", "status"),
    step("git status, warm", "status", "status"),
    step("make", "not_compiled", "compile"),
    step("rm -rf", "unpacked", "remove"),
];

const fn step(name: &'static str, prepare: &'static str, run: &'static str) -> Step {
    Step { name, prepare, run }
}
