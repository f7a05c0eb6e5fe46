use std::collections::HashSet;
use std::ffi::{CString, OsString};
use std::fs::{self, FileType, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use fuse_wire::abi::Attr;
use fuse_wire::{Handle, NodeId};
use rustix::io::Errno;
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
        root,
        xattr,
        device,
        contents,
        pending: Vec::new(),
    };
    walk.begin(root).map_err(broken(root))?;
    while let Some(directory) = walk.pending.pop() {
        walk.visit(&directory).map_err(broken(&directory))?;
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
    root: &'a Path,
    xattr: bool,
    /// Of the root: other filesystems are left out.
    device: u64,
    contents: Contents,
    /// Directories that are to be visited. They hold no lookup: each of those may cost the daemon a
    /// descriptor.
    pending: Vec<PathBuf>,
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
    fn visit(&mut self, directory: &Path) -> Result<(), GuestError> {
        let before = fs::symlink_metadata(directory);
        let host = host_names(directory);
        let guest = match self.enter(directory)? {
            Ok(node) => {
                let names = self.names(node, directory)?;
                self.forget(node)?;
                names
            }
            Err(error) => Err(error),
        };
        let finding = match (host, guest) {
            (Ok(host), Ok(guest)) => compare_names(&host, &guest),
            (host, guest) => {
                let host = host.err().map(|error| errno(&error));
                Finding::of_failure("list", host, guest.err())
            }
        };
        self.judge(directory, before.as_ref().ok(), finding);
        Ok(())
    }

    /// Looks a path below the root up, component by component. What is returned holds a lookup.
    fn enter(&mut self, path: &Path) -> Result<Result<NodeId, Errno>, GuestError> {
        let mut node = NodeId::ROOT;
        for component in path.strip_prefix(self.root).unwrap_or(path) {
            let found = answer(self.stack.lookup(node, &c_name(component.as_bytes())))?;
            self.forget(node)?;
            node = match found {
                Ok(found) => found.nodeid,
                Err(error) => return Ok(Err(error)),
            };
        }
        Ok(Ok(node))
    }

    /// Opens a directory, compares what it lists, and returns the names.
    fn names(
        &mut self,
        node: NodeId,
        path: &Path,
    ) -> Result<Result<HashSet<OsString>, Errno>, GuestError> {
        let handle = match answer(self.stack.opendir(node))? {
            Ok(handle) => handle,
            Err(error) => return Ok(Err(error)),
        };
        let names = self.list(node, path, handle)?;
        self.stack.releasedir(node, handle)?;
        Ok(names)
    }

    /// Compares what an open directory lists, and returns the names.
    fn list(
        &mut self,
        node: NodeId,
        path: &Path,
        handle: Handle,
    ) -> Result<Result<HashSet<OsString>, Errno>, GuestError> {
        let mut names = HashSet::new();
        let mut offset = 0;
        loop {
            let entries = match answer(self.stack.readdirplus(node, handle, offset))? {
                Ok(entries) => entries,
                Err(error) => return Ok(Err(error)),
            };
            let Some(last) = entries.last() else {
                return Ok(Ok(names));
            };
            offset = last.off;
            for entry in entries {
                if entry.name != b"." && entry.name != b".." {
                    self.compare_entry(node, path, &entry)?;
                    names.insert(OsString::from_vec(entry.name));
                }
            }
        }
    }

    fn compare_entry(
        &mut self,
        parent: NodeId,
        directory: &Path,
        entry: &DirectoryEntry,
    ) -> Result<(), GuestError> {
        let path = directory.join(OsString::from_vec(entry.name.clone()));
        let found = match entry.entry {
            Some(found) => found,
            // READDIRPLUS need not look everything up.
            None => match answer(self.stack.lookup(parent, &c_name(&entry.name)))? {
                Ok(found) => found,
                Err(error) => {
                    let host = fs::symlink_metadata(&path);
                    let host_error = host.as_ref().err().map(errno);
                    let finding = Finding::of_failure("lookup", host_error, Some(error));
                    self.judge(&path, host.as_ref().ok(), finding);
                    return Ok(());
                }
            },
        };
        self.compare(Item {
            node: found.nodeid,
            path,
            attr: found.attr,
        })
    }

    /// Compares an item with the host's, gives its lookup back, and has it visited where it is a
    /// directory.
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
        self.forget(item.node)?;
        if host.is_dir() {
            self.pending.push(item.path);
        }
        Ok(())
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

/// The name of something that exists, which has no NUL.
fn c_name(name: &[u8]) -> CString {
    CString::new(name).unwrap_or_default()
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
