//! A session that goes on in another process.

use std::io;

use fuse_wire::abi::InitIn;
use fuse_wire::flags::InitFlags;
use fuse_wire::{VERSION_MAJOR, VERSION_MINOR_OLDEST};
use serde::{Deserialize, Serialize};

use super::{Agreement, Session};
use crate::negotiate;
use crate::{FileSystem, State, StateForm, StateReader, StateWriter};

const FORM: StateForm = StateForm {
    of: *b"FUSE ses",
    version: 1,
};

/// What the guest said in INIT, besides what came of it. A filesystem that goes on is told again.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Offer {
    pub(super) minor: u32,
    pub(super) max_readahead: u32,
}

/// A session that was on.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    minor: u32,
    max_readahead: u32,
    flags: u64,
    max_pages: u16,
}

impl Saved {
    /// INIT of a guest that offers what was agreed on, and nothing else.
    fn init(&self) -> InitIn {
        let (flags, flags2) = InitFlags::from_bits_retain(self.flags).halves();
        InitIn {
            major: VERSION_MAJOR,
            minor: self.minor,
            max_readahead: self.max_readahead,
            flags,
            flags2,
            ..InitIn::default()
        }
    }

    /// What the guest believes.
    fn agreement(&self) -> io::Result<Agreement> {
        if self.max_pages == 0 || self.minor < VERSION_MINOR_OLDEST {
            return Err(invalid("no guest can have agreed to what it says of INIT"));
        }
        Ok(Agreement {
            flags: InitFlags::from_bits_retain(self.flags),
            max_pages: self.max_pages,
        })
    }
}

/// The state of the filesystem, and what INIT agreed on: the filesystem must agree to the same
/// again, so that what the guest believes remains true.
impl<F: FileSystem> State for Session<F> {
    fn save(&self, to: &mut dyn io::Write) -> io::Result<()> {
        let mut to = io::BufWriter::new(to);
        let offer = *self.take_turn();
        let agreement = self.agreement.load();
        let saved = agreement.map(|agreement| Saved {
            minor: offer.minor,
            max_readahead: offer.max_readahead,
            flags: agreement.flags.bits(),
            max_pages: agreement.max_pages,
        });
        StateWriter::new(&mut to, FORM)?.put(&saved)?;
        if saved.is_some() {
            self.filesystem_state()?.save(&mut to)?;
        }
        io::Write::flush(&mut to)
    }

    fn load(&self, from: &mut dyn io::Read) -> io::Result<()> {
        let mut turn = self.take_turn();
        self.end();
        let mut from = io::BufReader::new(from);
        let mut reader = StateReader::new(&mut from, FORM)?;
        let Some(saved) = reader.take::<Option<Saved>>()? else {
            return reader.finish();
        };
        let agreement = saved.agreement()?;
        let state = self.filesystem_state()?;
        let init = saved.init();
        let limits = self.limits();
        let mut negotiation = negotiate::propose(&init, limits);
        self.fs
            .init(&mut negotiation)
            .map_err(|error| invalid(format!("the filesystem refuses the session: {error}")))?;
        let (here, _) = negotiate::settle(&init, &negotiation, limits);
        let loaded = check_same(agreement, here).and_then(|()| state.load(&mut from));
        if let Err(error) = loaded {
            self.fs.destroy();
            return Err(error);
        }
        *turn = Offer {
            minor: saved.minor,
            max_readahead: saved.max_readahead,
        };
        tracing::debug!(?agreement, "session goes on");
        self.agreement.begin(agreement);
        Ok(())
    }
}

impl<F: FileSystem> Session<F> {
    fn filesystem_state(&self) -> io::Result<&dyn State> {
        let none = || io::Error::new(io::ErrorKind::Unsupported, "the filesystem has no state");
        self.fs.state().ok_or_else(none)
    }
}

/// Makes sure that what the guest agreed to is what is done `here`.
fn check_same(agreement: Agreement, here: Agreement) -> io::Result<()> {
    let missing = agreement.flags.difference(here.flags);
    if !missing.is_empty() {
        return Err(invalid(format!(
            "the guest counts on {}, which this filesystem does not do; give it the options that \
             it had",
            names(missing)
        )));
    }
    if here.max_pages < agreement.max_pages {
        return Err(invalid(format!(
            "the guest writes up to {} bytes at once, and here it may {}; use the same limits",
            agreement.max_write(),
            here.max_write()
        )));
    }
    Ok(())
}

fn names(flags: InitFlags) -> String {
    let known: Vec<_> = flags.iter_names().map(|(name, _)| name).collect();
    match known.is_empty() {
        true => format!("the flags {:#x}", flags.bits()),
        false => known.join(", "),
    }
}

fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}
