use std::path::Path;

use testing::{Guest, PROCESSORS, Share};

use super::Daemon;

/// Boots a guest on the share of `root` with that of `data` at hand. It runs `workload`, a script of
/// `tests/guest/`, with the variables `environment`, each `NAME=VALUE` without blanks.
///
/// QEMU has the options `qemu` as well.
pub(crate) fn boot(
    root: &Daemon,
    data: &Daemon,
    workload: &str,
    environment: &[&str],
    qemu: &[&str],
) -> Guest {
    let share = |tag, daemon| Share {
        tag,
        socket: Daemon::socket(daemon),
        request_queues: PROCESSORS,
    };
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest");
    let environment = [&["DATA_TAG=data"], environment].concat();
    Guest::boot_with(
        &share("root", root),
        &[share("data", data)],
        &scripts.join(workload),
        &environment,
        qemu,
    )
}
