use std::collections::HashSet;
use std::ffi::{CString, OsString};
use std::fs::{self, FileType, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use fuse_wire::abi::Attr;
use fuse_wire::{Handle, NodeId};
use virtio_fs_guest::{DirectoryEntry, Error as GuestError};

use super::contents::Contents;
use super::finding::{Finding, answer, errno};
use super::report::{Kind, Report};
use super::stack::{Error, Stack};
use super::{metadata, xattrs};

/// Compares `root` and everything below it with what the stack shows. With `xattr`, extended
/// attributes as well.
///
/// # Errors
/// The stack does not work. What differs is reported instead.
pub(super) fn walk(
    stack: &mut Stack,
    root: &Path,
    xattr: bool,
    report: &mut Report,
) -> Result<(), Error> {
    let device = fs::metadata(root)
        .map_err(|error| Error::Directory(root.to_owned(), error))?
        .dev();
    let contents = Contents::new(stack.max_read());
    let mut walk = Walk {
        stack,
        report,
        xattr,
        device,
        contents,
        pending: Vec::new(),
    };
    walk.begin(root).map_err(broken(root))?;
    while let Some(directory) = walk.pending.pop() {
        walk.visit(&directory).map_err(broken(&directory.path))?;
    }
    Ok(())
}

fn broken(path: &Path) -> impl FnOnce(GuestError) -> Error {
    let path = path.to_owned();
    move |source| Error::Broken { path, source }
}

struct Walk<'a> {
    stack: &'a mut Stack,
    report: &'a mut Report,
    xattr: bool,
    /// Of the root: other filesystems are left out.
    device: u64,
    contents: Contents,
    /// Directories that are to be visited.
    pending: Vec<Item>,
}

/// What is on both sides, as far as the listing of its directory goes.
struct Item {
    /// Holds a lookup.
    node: NodeId,
    path: PathBuf,
    /// As the stack told them.
    attr: Attr,
}

impl Walk<'_> {
    fn begin(&mut self, root: &Path) -> Result<(), GuestError> {
        let attr = self.stack.getattr(NodeId::ROOT)?;
        self.compare(Item {
            node: NodeId::ROOT,
            path: root.to_owned(),
            attr,
        })
    }

    /// Compares the entries of a directory, each with what it names.
    fn visit(&mut self, directory: &Item) -> Result<(), GuestError> {
        let before = fs::symlink_metadata(&directory.path);
        let names = host_names(&directory.path);
        let found = match answer(self.stack.opendir(directory.node))? {
            Ok(handle) => {
                let listed = self.list(directory, handle)?;
                self.stack.releasedir(directory.node, handle)?;
                Ok(listed)
            }
            Err(error) => Err(error),
        };
        let finding = match (names, found) {
            (Ok(host), Ok(guest)) => compare_names(&host, &guest),
            (host, guest) => {
                let host = host.err().map(|error| errno(&error));
                Finding::of_failure("opendir", host, guest.err())
            }
        };
        if finding != Finding::Same {
            self.judge(&directory.path, before.as_ref().ok(), finding);
        }
        self.forget(directory.node)
    }

    /// Compares what an open directory lists, and returns the names.
    fn list(&mut self, directory: &Item, handle: Handle) -> Result<HashSet<OsString>, GuestError> {
        let mut names = HashSet::new();
        let mut offset = 0;
        loop {
            let entries = self.stack.readdirplus(directory.node, handle, offset)?;
            let Some(last) = entries.last() else {
                return Ok(names);
            };
            offset = last.off;
            for entry in entries {
                if entry.name != b"." && entry.name != b".." {
                    self.compare_entry(directory, &entry)?;
                    names.insert(OsString::from_vec(entry.name));
                }
            }
        }
    }

    fn compare_entry(
        &mut self,
        directory: &Item,
        entry: &DirectoryEntry,
    ) -> Result<(), GuestError> {
        let path = directory.path.join(OsString::from_vec(entry.name.clone()));
        let found = match entry.entry {
            Some(found) => found,
            // READDIRPLUS need not look everything up.
            None => {
                let name = CString::new(entry.name.clone()).unwrap_or_default();
                match answer(self.stack.lookup(directory.node, &name))? {
                    Ok(found) => found,
                    Err(error) => {
                        let host = fs::symlink_metadata(&path);
                        let host_error = host.as_ref().err().map(errno);
                        let finding = Finding::of_failure("lookup", host_error, Some(error));
                        self.judge(&path, host.as_ref().ok(), finding);
                        return Ok(());
                    }
                }
            }
        };
        self.compare(Item {
            node: found.nodeid,
            path,
            attr: found.attr,
        })
    }

    /// Compares an item with the host's, and keeps it where it is a directory.
    fn compare(&mut self, item: Item) -> Result<(), GuestError> {
        self.report.progress(&item.path, self.stack.totals());
        let host = match fs::symlink_metadata(&item.path) {
            Ok(host) => host,
            Err(error) => {
                let finding = match error.kind() {
                    io::ErrorKind::NotFound => Finding::Changed,
                    _ => Finding::of_failure("stat", Some(errno(&error)), None),
                };
                self.judge(&item.path, None, finding);
                return self.forget(item.node);
            }
        };
        if host.dev() != self.device {
            self.report.left_out();
            return self.forget(item.node);
        }
        self.report.count(kind_of(host.file_type()));
        let finding = self.findings(&item, &host)?;
        self.judge(&item.path, Some(&host), finding);
        if host.is_dir() {
            self.pending.push(item);
            return Ok(());
        }
        self.forget(item.node)
    }

    /// Compares metadata, contents and extended attributes, up to the first difference.
    fn findings(&mut self, item: &Item, host: &Metadata) -> Result<Finding, GuestError> {
        let mut finding = self.compare_metadata(item, host)?;
        if finding == Finding::Same && host.is_file() {
            finding = self.contents.compare(self.stack, item.node, &item.path)?;
        }
        if finding == Finding::Same && host.is_symlink() {
            finding = self.compare_target(item)?;
        }
        if finding == Finding::Same && self.xattr {
            finding = xattrs::compare(self.stack, item.node, &item.path)?;
        }
        Ok(finding)
    }

    fn compare_metadata(&mut self, item: &Item, host: &Metadata) -> Result<Finding, GuestError> {
        let mut differences = metadata::differences(host, &item.attr);
        if !differences.is_empty() && !metadata::same_ctime(host, &item.attr) {
            // It changed since the directory was listed. Is it the same now?
            match answer(self.stack.getattr(item.node))? {
                Ok(now) => differences = metadata::differences(host, &now),
                Err(error) => return Ok(Finding::of_failure("getattr", None, Some(error))),
            }
            if differences.is_empty() {
                return Ok(Finding::Changed);
            }
        }
        Ok(match differences.is_empty() {
            true => Finding::Same,
            false => Finding::Differs(differences.join("; ")),
        })
    }

    fn compare_target(&mut self, item: &Item) -> Result<Finding, GuestError> {
        let host = fs::read_link(&item.path);
        let guest = answer(self.stack.readlink(item.node))?;
        Ok(match (host, guest) {
            (Ok(host), Ok(guest)) if host.as_os_str().as_bytes() == guest => Finding::Same,
            (Ok(host), Ok(guest)) => Finding::Differs(format!(
                "target: {} on the host, {} through the stack",
                host.display(),
                OsString::from_vec(guest).display()
            )),
            (host, guest) => {
                let host = host.err().map(|error| errno(&error));
                Finding::of_failure("readlink", host, guest.err())
            }
        })
    }

    /// Reports what was found. A difference counts only where the original is still as it was
    /// `before` the comparison.
    fn judge(&mut self, path: &Path, before: Option<&Metadata>, finding: Finding) {
        match finding {
            Finding::Same => {}
            Finding::Unreadable => self.report.unreadable(path),
            Finding::Changed => self.report.changed(path),
            Finding::Differs(_) if !is_still(path, before) => self.report.changed(path),
            Finding::Differs(how) => self.report.difference(path, &how),
        }
    }

    fn forget(&mut self, node: NodeId) -> Result<(), GuestError> {
        match node {
            NodeId::ROOT => Ok(()),
            _ => self.stack.forget(node),
        }
    }
}

fn host_names(directory: &Path) -> io::Result<HashSet<OsString>> {
    fs::read_dir(directory)?
        .map(|entry| Ok(entry?.file_name()))
        .collect()
}

fn compare_names(host: &HashSet<OsString>, guest: &HashSet<OsString>) -> Finding {
    let sides = [
        only_in(host, guest).map(|names| format!("on the host only: {names}")),
        only_in(guest, host).map(|names| format!("not on the host: {names}")),
    ];
    let sides: Vec<String> = sides.into_iter().flatten().collect();
    match sides.is_empty() {
        true => Finding::Same,
        false => Finding::Differs(sides.join("; ")),
    }
}

/// Names some of those that only `one` has.
fn only_in(one: &HashSet<OsString>, other: &HashSet<OsString>) -> Option<String> {
    const SOME: usize = 5;
    let mut names: Vec<&OsString> = one.difference(other).collect();
    names.sort();
    let shown: Vec<String> = names
        .iter()
        .take(SOME)
        .map(|name| name.display().to_string())
        .collect();
    match names.len() {
        0 => None,
        len if len > SOME => Some(format!("{} and {} more", shown.join(", "), len - SOME)),
        _ => Some(shown.join(", ")),
    }
}

fn is_still(path: &Path, before: Option<&Metadata>) -> bool {
    let version = |metadata: &Metadata| {
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        (metadata.dev(), metadata.ino(), changed)
    };
    let now = fs::symlink_metadata(path).ok();
    now.as_ref().map(version) == before.map(version)
}

fn kind_of(file_type: FileType) -> Kind {
    if file_type.is_dir() {
        Kind::Directory
    } else if file_type.is_file() {
        Kind::File
    } else if file_type.is_symlink() {
        Kind::SymbolicLink
    } else {
        Kind::Special
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> HashSet<OsString> {
        names.iter().map(OsString::from).collect()
    }

    #[test]
    fn names_that_one_side_lacks_are_told() {
        let finding = compare_names(&names(&["a", "b"]), &names(&["b", "c"]));
        let expected = "on the host only: a; not on the host: c".to_owned();
        assert_eq!(finding, Finding::Differs(expected));
        let finding = compare_names(&names(&["1", "2", "3", "4", "5", "6", "7"]), &names(&[]));
        let expected = "on the host only: 1, 2, 3, 4, 5 and 2 more".to_owned();
        assert_eq!(finding, Finding::Differs(expected));
        assert_eq!(compare_names(&names(&["a"]), &names(&["a"])), Finding::Same);
    }

    #[test]
    fn change_is_noticed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let before = fs::symlink_metadata(file.path()).unwrap();
        assert!(is_still(file.path(), Some(&before)));
        let path = file.path().to_owned();
        drop(file);
        assert!(!is_still(&path, Some(&before)));
        assert!(is_still(&path, None));
    }
}
