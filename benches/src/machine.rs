//! What machine this is.

use std::fs;

/// Its processors and its kernel, such as `4 x Intel Xeon, Linux 6.12.1`.
#[must_use]
pub fn describe() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let info = read("/proc/cpuinfo");
    let model = model(&info).unwrap_or(std::env::consts::ARCH);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{processors} x {model}, Linux {}", kernel.trim())
}

/// The processor's name (proc_cpuinfo(5)); not all architectures tell one.
fn model(info: &str) -> Option<&str> {
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))?;
    let (_, name) = line.split_once(':')?;
    Some(name.trim()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_found() {
        let info = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t: fpu\n";
        assert_eq!(model(info), Some("AMD EPYC"));
        assert_eq!(model("processor\t: 0\n"), None);
    }
}
