//! Whether a program listens already.

use std::fs;
use std::path::Path;

/// `__SO_ACCEPTCON` of the kernel, as proc_net_unix(5) shows it for a socket that listens.
const LISTENING: &str = "00010000";

/// Whether a program listens at the Unix domain socket `path`, as /proc/net/unix tells: between
/// bind(2) and listen(2) its file is there and refuses who connects. Does not connect, as a
/// vhost-user daemon may end with its first connection.
#[must_use]
pub fn listens(path: &Path) -> bool {
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    sockets.lines().any(|line| {
        let mut fields = line.split_whitespace();
        let flags = fields.nth(3);
        flags == Some(LISTENING) && fields.nth(3).is_some_and(|bound| Path::new(bound) == path)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    #[test]
    fn only_a_listener_listens() {
        let folder = std::env::temp_dir().join(format!("listens-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let (bound, served) = (folder.join("bound"), folder.join("served"));
        let _bound = UnixDatagram::bind(&bound).unwrap();
        let server = UnixListener::bind(&served).unwrap();
        assert!(bound.exists() && !listens(&bound));
        assert!(listens(&served));
        drop(server);
        assert!(served.exists() && !listens(&served));
        fs::remove_dir_all(&folder).unwrap();
    }
}
