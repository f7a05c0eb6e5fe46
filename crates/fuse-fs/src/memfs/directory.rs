use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use fuse_wire::NodeId;

use super::budget::bytes;

/// The cookie after `.`.
pub(super) const COOKIE_DOT: u64 = 1;
/// The cookie after `..`.
pub(super) const COOKIE_DOT_DOT: u64 = 2;
/// What an entry takes up besides its name, about.
const OVERHEAD: u64 = 128;

/// The entries of a directory.
///
/// Each entry keeps the cookie that it got when it was made, and none is given twice, so a listing
/// goes on where it was however many entries come and go between.
#[derive(Debug)]
pub(super) struct Directory {
    /// Where `..` leads.
    pub(super) parent: NodeId,
    cookies: HashMap<Arc<[u8]>, u64>,
    entries: BTreeMap<u64, Child>,
    last_cookie: u64,
}

/// What a directory knows of an entry.
#[derive(Debug, Clone)]
pub(super) struct Child {
    pub(super) name: Arc<[u8]>,
    pub(super) node: NodeId,
}

impl Directory {
    pub(super) fn new(parent: NodeId) -> Self {
        Self {
            parent,
            cookies: HashMap::new(),
            entries: BTreeMap::new(),
            last_cookie: COOKIE_DOT_DOT,
        }
    }

    pub(super) fn find(&self, name: &[u8]) -> Option<NodeId> {
        let cookie = self.cookies.get(name)?;
        self.entries.get(cookie).map(|child| child.node)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds an entry whose name is not there yet.
    pub(super) fn insert(&mut self, name: &[u8], node: NodeId) {
        let name: Arc<[u8]> = name.into();
        self.last_cookie = self.last_cookie.saturating_add(1);
        self.cookies.insert(name.clone(), self.last_cookie);
        self.entries.insert(self.last_cookie, Child { name, node });
    }

    /// Makes the entry `name`, if it is there, lead to `node`.
    pub(super) fn replace(&mut self, name: &[u8], node: NodeId) {
        if let Some(child) = self
            .cookies
            .get(name)
            .and_then(|cookie| self.entries.get_mut(cookie))
        {
            child.node = node;
        }
    }

    pub(super) fn remove(&mut self, name: &[u8]) {
        if let Some(cookie) = self.cookies.remove(name) {
            self.entries.remove(&cookie);
        }
    }

    /// The entry after `cookie`, and its own cookie.
    pub(super) fn after(&self, cookie: u64) -> Option<(u64, &Child)> {
        let (&cookie, child) = self
            .entries
            .range((Bound::Excluded(cookie), Bound::Unbounded))
            .next()?;
        Some((cookie, child))
    }
}

/// Bytes of memory that an entry takes up.
pub(super) fn entry_cost(name: &[u8]) -> u64 {
    bytes(name.len()).saturating_add(OVERHEAD)
}
