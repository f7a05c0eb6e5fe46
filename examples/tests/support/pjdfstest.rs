//! What pjdfstest reports.

/// Tests in version 0.2.2, on Linux.
const TESTS: usize = 398;

/// Checks that all tests pass, but those that are listed here as skipped. `all` is the output of a
/// run of all tests without remounts, `remounts` that of one of those that remount: they need a run
/// of their own, as the others leave files open.
///
/// # Panics
/// Where a test fails, is skipped and not listed, or is missing.
pub(crate) fn assert_passed(all: &str, remounts: &str) {
    let listed = include_str!("pjdfstest.skipped");
    print!("{listed}");
    let listed = listed.lines().filter(|line| !line.starts_with('#'));
    let listed: Vec<_> = listed.filter_map(|line| line.split_once(": ")).collect();
    let listed: Vec<_> = listed.into_iter().map(|(name, _)| name).collect();

    let mut all = Summary::read(all);
    let remounts = Summary::read(remounts);
    assert_eq!(remounts.skipped, [""; 0]);
    // These are in the other run.
    all.skipped.retain(|name| !name.contains("erofs"));
    assert_eq!(all.skipped, listed);
    assert_eq!(all.passed + remounts.passed + listed.len(), TESTS);
}

struct Summary<'o> {
    passed: usize,
    skipped: Vec<&'o str>,
}

impl<'o> Summary<'o> {
    /// # Panics
    /// Where a test failed.
    fn read(output: &'o str) -> Self {
        let names = |end| {
            let lines = output
                .lines()
                .filter_map(move |line| line.strip_suffix(end));
            lines.map(str::trim_end)
        };
        let summary = Self {
            passed: names(" ok").count(),
            skipped: names(" skipped").collect(),
        };
        let told = output.lines().find(|line| line.starts_with("Summary: "));
        println!("{}", told.unwrap_or("no summary"));
        let (passed, skipped) = (summary.passed, summary.skipped.len());
        let wanted = format!(
            "Summary: 0 failed, {skipped} skipped, {passed} passed, 0 expected failures, {} total",
            passed + skipped
        );
        assert_eq!(told, Some(wanted.as_str()), "{output}");
        summary
    }
}
