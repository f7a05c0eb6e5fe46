use std::fmt;

use crate::Error;

/// Where a device is in its life. What a call makes of it is decided in one place, the table of
/// [`Device`](crate::Device).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Made; the driver has not accepted features yet.
    New,
    /// The driver accepted features.
    Negotiated,
    /// The driver uses it.
    Active,
    /// It was active, and is stopped until it is resumed.
    Paused,
    /// The daemon is gone, and looked for; then it goes on where it was.
    Disconnected,
    /// The driver reset it.
    Reset,
    /// It lost what the driver relies on: only a reset helps.
    Failed,
}

/// What can be asked of a [`Device`](crate::Device) in some states and not in others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Call {
    /// [`Device::ack_features`](crate::Device::ack_features)
    AckFeatures,
    /// [`Device::activate`](crate::Device::activate)
    Activate,
    /// [`Device::reset`](crate::Device::reset)
    Reset,
    /// [`Device::pause`](crate::Device::pause)
    Pause,
    /// [`Device::resume`](crate::Device::resume)
    Resume,
    /// [`Device::update_memory`](crate::Device::update_memory)
    UpdateMemory,
    /// [`Device::save`](crate::Device::save)
    Save,
    /// [`Device::restore`](crate::Device::restore)
    Restore,
}

/// What happens to a device without being asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happening {
    /// The daemon is gone; whether the next one can go on where it was.
    Lost { resumable: bool },
    /// A daemon is there that goes on.
    Regained,
}

/// A state without regard to whether there is a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    New,
    Negotiated,
    Active,
    Paused,
    Reset,
    Failed,
}

/// The state of a device, and all that changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lifecycle {
    pub(crate) phase: Phase,
    pub(crate) connected: bool,
}

impl Lifecycle {
    /// A device just made.
    pub(crate) const NEW: Self = Self {
        phase: Phase::New,
        connected: true,
    };

    pub(crate) const fn state(self) -> State {
        match (self.phase, self.connected) {
            (Phase::Failed, _) => State::Failed,
            (_, false) => State::Disconnected,
            (Phase::New, _) => State::New,
            (Phase::Negotiated, _) => State::Negotiated,
            (Phase::Active, _) => State::Active,
            (Phase::Paused, _) => State::Paused,
            (Phase::Reset, _) => State::Reset,
        }
    }

    /// The phase in which `call` leaves the device where it succeeds.
    ///
    /// # Errors
    /// It is not for this state.
    pub(crate) fn after(self, call: Call) -> Result<Phase, Error> {
        use Phase::{Active, Failed, Negotiated, New, Paused, Reset};
        let now = self.phase;
        let next = match (call, now) {
            (Call::AckFeatures, New | Negotiated | Reset) => Some(Negotiated),
            (Call::Activate, Negotiated) => Some(Active),
            (Call::Reset, _) => Some(Reset),
            (Call::Pause, Active) => Some(Paused),
            (Call::Resume, Paused) => Some(Active),
            // A machine is paused and resumed with all its devices.
            (Call::Pause | Call::Resume, New | Negotiated | Reset | Failed) => Some(now),
            (Call::UpdateMemory, Active | Paused) => Some(now),
            (Call::Save, New | Negotiated | Reset) => Some(now),
            (Call::Save, Paused) if self.connected => Some(now),
            (Call::Restore, New | Reset) if self.connected => Some(Paused),
            _ => None,
        };
        next.ok_or(Error::WrongState {
            call,
            state: self.state(),
        })
    }

    /// What becomes of the device.
    pub(crate) const fn on(self, happening: Happening) -> Self {
        let phase = match (happening, self.phase) {
            (Happening::Lost { resumable: false }, Phase::Active | Phase::Paused) => Phase::Failed,
            (_, phase) => phase,
        };
        let connected = matches!(happening, Happening::Regained);
        Self { phase, connected }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::New => "new",
            Self::Negotiated => "negotiated",
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Disconnected => "disconnected",
            Self::Reset => "reset",
            Self::Failed => "failed",
        })
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AckFeatures => "ack_features",
            Self::Activate => "activate",
            Self::Reset => "reset",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::UpdateMemory => "update_memory",
            Self::Save => "save",
            Self::Restore => "restore",
        })
    }
}
