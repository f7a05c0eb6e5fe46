use std::ffi::{CStr, CString};

/// A filesystem with tables, which threads share.
pub(crate) trait Subject: Sync {
    /// Looks a file of the root up, and counts that; returns its node.
    fn lookup(&self, name: &CStr) -> u64;
    fn getattr(&self, node: u64);
    fn forget(&self, node: u64, lookups: u64);
    /// Opens a file, and returns its handle.
    fn open(&self, node: u64) -> u64;
    fn release(&self, node: u64, handle: u64);
    /// Asks where the data of an open file is.
    fn lseek(&self, node: u64, handle: u64);
}

/// What a thread works on: a file that is known and open.
pub(crate) struct Task {
    name: CString,
    node: u64,
    handle: u64,
}

impl Task {
    pub(crate) fn new(subject: &dyn Subject, file: usize) -> Self {
        let name = CString::new(file.to_string()).expect("a number has no NUL");
        let node = subject.lookup(&name);
        let handle = subject.open(node);
        Self { name, node, handle }
    }

    pub(crate) fn end(self, subject: &dyn Subject) {
        subject.release(self.node, self.handle);
        subject.forget(self.node, 1);
    }
}

/// An operation that all threads do.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) operation: fn(&dyn Subject, &Task),
    /// Each on the same file, instead of one of its own.
    pub(crate) same_file: bool,
}

pub(crate) const ROWS: [Row; 8] = [
    own("FORGET of no lookups: the table alone", forget_nothing),
    same("the same, of one node", forget_nothing),
    own("GETATTR", getattr),
    same("GETATTR of one file", getattr),
    own("LOOKUP, FORGET", look_up_and_forget),
    own("OPEN, RELEASE", open_and_release),
    own("LSEEK", lseek),
    own("LOOKUP, GETATTR, OPEN, LSEEK, RELEASE, FORGET", all),
];

const fn own(name: &'static str, operation: fn(&dyn Subject, &Task)) -> Row {
    Row {
        name,
        operation,
        same_file: false,
    }
}

const fn same(name: &'static str, operation: fn(&dyn Subject, &Task)) -> Row {
    Row {
        same_file: true,
        ..own(name, operation)
    }
}

fn forget_nothing(subject: &dyn Subject, task: &Task) {
    subject.forget(task.node, 0);
}

fn getattr(subject: &dyn Subject, task: &Task) {
    subject.getattr(task.node);
}

fn look_up_and_forget(subject: &dyn Subject, task: &Task) {
    subject.forget(subject.lookup(&task.name), 1);
}

fn open_and_release(subject: &dyn Subject, task: &Task) {
    subject.release(task.node, subject.open(task.node));
}

fn lseek(subject: &dyn Subject, task: &Task) {
    subject.lseek(task.node, task.handle);
}

fn all(subject: &dyn Subject, task: &Task) {
    let node = subject.lookup(&task.name);
    subject.getattr(node);
    let handle = subject.open(node);
    subject.lseek(node, handle);
    subject.release(node, handle);
    subject.forget(node, 1);
}
