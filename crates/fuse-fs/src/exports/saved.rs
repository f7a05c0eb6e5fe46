//! Several filesystems that go on in another process.

use std::io;

use fuse_wire::{Handle, NodeId};
use serde::{Deserialize, Serialize};

use super::handles::Open;
use super::nodes::{Held, Inner};
use super::{Exports, FIRST_NODE};
use crate::{State, StateForm, StateReader, StateWriter};

const FORM: StateForm = StateForm {
    of: *b"exports ",
    version: 1,
};

/// Most bytes of a member's state that are one record.
const PIECE: usize = StateReader::MAX_BYTES;

/// No id is as high.
const LAST: u64 = 1 << 63;

#[derive(Debug, Serialize, Deserialize)]
enum Record<'a> {
    /// A filesystem, by its name. Its state follows, in pieces, of which the last one is empty.
    Member(&'a [u8]),
    Piece(&'a [u8]),
    /// Behind the filesystems: which ids are given out next.
    Next {
        node: u64,
        handle: u64,
    },
    Node {
        id: u64,
        member: u32,
        node: u64,
        count: u64,
    },
    Handle {
        id: u64,
        member: u32,
        node: u64,
        handle: u64,
    },
    End,
}

/// There is one where every filesystem has one.
impl State for Exports {
    fn save(&self, to: &mut dyn io::Write) -> io::Result<()> {
        let mut writer = StateWriter::new(to, FORM)?;
        for (name, member) in self.root.inner().names().zip(&self.members) {
            let state = member.state().ok_or(io::ErrorKind::Unsupported)?;
            writer.put(&Record::Member(name))?;
            let mut pieces = io::BufWriter::with_capacity(PIECE, Pieces(&mut writer));
            state.save(&mut pieces)?;
            io::Write::flush(&mut pieces)?;
            drop(pieces);
            writer.put(&Record::Piece(&[]))?;
        }
        let (node, handle) = (self.nodes.next(), self.handles.last());
        writer.put(&Record::Next { node, handle })?;
        for (id, held) in self.nodes.all() {
            writer.put(&Record::Node {
                id: id.0,
                member: saved_member(held.inner)?,
                node: held.inner.node.0,
                count: held.count,
            })?;
        }
        for (id, open) in self.handles.all() {
            writer.put(&Record::Handle {
                id: id.0,
                member: saved_member(open.inner)?,
                node: open.inner.node.0,
                handle: open.handle.0,
            })?;
        }
        writer.put(&Record::End)
    }

    fn load(&self, from: &mut dyn io::Read) -> io::Result<()> {
        self.handles.clear();
        self.nodes.clear();
        let mut reader = StateReader::new(from, FORM)?;
        for (name, member) in self.root.inner().names().zip(&self.members) {
            let state = member.state().ok_or(io::ErrorKind::Unsupported)?;
            match reader.take()? {
                Record::Member(found) if found == name => {}
                found => {
                    return Err(invalid(format!(
                        "the export {:?} is due and there is {found:?}; have the same exports on \
                         both sides, in the same order",
                        String::from_utf8_lossy(name)
                    )));
                }
            }
            let mut pieces = Joined::new(&mut reader);
            state.load(&mut pieces)?;
            // A state may end before its last piece does.
            if io::Read::read(&mut pieces, &mut [0])? != 0 {
                return Err(invalid(
                    "the state of an export goes on where it should end",
                ));
            }
        }
        self.load_tables(&mut reader)?;
        reader.finish()
    }
}

impl Exports {
    fn load_tables(&self, reader: &mut StateReader<'_>) -> io::Result<()> {
        let Record::Next { node, handle } = reader.take()? else {
            return Err(invalid("an export that is not here"));
        };
        if !(FIRST_NODE..LAST).contains(&node) || handle >= LAST {
            return Err(invalid("nothing gives out so many ids"));
        }
        self.nodes.begin_at(node);
        self.handles.begin_after(handle);
        loop {
            let taken = match reader.take()? {
                Record::Node {
                    id,
                    member,
                    node,
                    count,
                } => {
                    let inner = self.saved_inner(member, node)?;
                    let is_new = (FIRST_NODE..self.nodes.next()).contains(&id) && count > 0;
                    is_new && self.nodes.put(NodeId(id), Held { inner, count })
                }
                Record::Handle {
                    id,
                    member,
                    node,
                    handle,
                } => {
                    let inner = self.saved_inner(member, node)?;
                    let handle = Handle(handle);
                    let is_new = id <= self.handles.last();
                    is_new && self.handles.put(Handle(id), Open { inner, handle })
                }
                Record::End => return Ok(()),
                found => return Err(invalid(format!("{found:?} where none is due"))),
            };
            if !taken {
                return Err(invalid("an id that cannot be, or is there twice"));
            }
        }
    }

    fn saved_inner(&self, member: u32, node: u64) -> io::Result<Inner> {
        let member = usize::try_from(member).unwrap_or(usize::MAX);
        match member <= self.members.len() {
            true => Ok(Inner {
                member,
                node: NodeId(node),
            }),
            false => Err(invalid(format!("export {member} is not here"))),
        }
    }
}

fn saved_member(inner: Inner) -> io::Result<u32> {
    u32::try_from(inner.member).map_err(io::Error::other)
}

/// Writes what it is given as records.
struct Pieces<'a, 'w>(&'a mut StateWriter<'w>);

impl io::Write for Pieces<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(PIECE);
        if let Some(piece) = bytes.get(..len).filter(|piece| !piece.is_empty()) {
            self.0.put(&Record::Piece(piece))?;
        }
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads what is in records.
struct Joined<'a, 'r> {
    reader: &'a mut StateReader<'r>,
    piece: Vec<u8>,
    read: usize,
    is_over: bool,
}

impl<'a, 'r> Joined<'a, 'r> {
    fn new(reader: &'a mut StateReader<'r>) -> Self {
        Self {
            reader,
            piece: Vec::new(),
            read: 0,
            is_over: false,
        }
    }
}

impl io::Read for Joined<'_, '_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.read >= self.piece.len() && !self.is_over {
            let Record::Piece(piece) = self.reader.take()? else {
                return Err(invalid("the state of an export breaks off"));
            };
            self.piece.clear();
            self.piece.extend_from_slice(piece);
            self.read = 0;
            self.is_over = piece.is_empty();
        }
        let rest = self.piece.get(self.read..).unwrap_or_default();
        let len = rest.len().min(bytes.len());
        if let (Some(to), Some(from)) = (bytes.get_mut(..len), rest.get(..len)) {
            to.copy_from_slice(from);
        }
        self.read = self.read.saturating_add(len);
        Ok(len)
    }
}

fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}
