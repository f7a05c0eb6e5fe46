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
    /// [`Device::start_queue`](crate::Device::start_queue)
    StartQueue,
    /// [`Device::stop_queue`](crate::Device::stop_queue)
    StopQueue,
    /// [`Device::update_interrupt`](crate::Device::update_interrupt)
    UpdateInterrupt,
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
    /// What serves it within the process does not stop, and nobody knows when it will.
    #[cfg(feature = "in-process")]
    Stuck,
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
    pub(crate) const NEW: Self = Self::of(Phase::New);

    /// One whose daemon is there.
    const fn of(phase: Phase) -> Self {
        let connected = true;
        Self { phase, connected }
    }

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
        self.next(call).ok_or_else(|| {
            let with_daemon = Self::of(self.phase);
            let state = match with_daemon.next(call) {
                Some(_) => self.state(),
                None => with_daemon.state(),
            };
            Error::WrongState { call, state }
        })
    }

    fn next(self, call: Call) -> Option<Phase> {
        use Phase::{Active, Failed, Negotiated, New, Paused, Reset};
        let now = self.phase;
        match (call, now) {
            (Call::AckFeatures, New | Negotiated | Reset) => Some(Negotiated),
            (Call::Activate, Negotiated) => Some(Active),
            (Call::Reset, _) => Some(Reset),
            (Call::Pause, Active) => Some(Paused),
            (Call::Resume, Paused) => Some(Active),
            // A machine is paused and resumed with all its devices.
            (Call::Pause | Call::Resume, New | Negotiated | Reset | Failed) => Some(now),
            (Call::UpdateMemory, Active | Paused) => Some(now),
            (Call::StartQueue | Call::StopQueue | Call::UpdateInterrupt, Active) => Some(now),
            (Call::Save, New | Negotiated | Reset) => Some(now),
            (Call::Save, Paused) if self.connected => Some(now),
            (Call::Restore, New | Reset) if self.connected => Some(Paused),
            _ => None,
        }
    }

    /// What becomes of the device.
    pub(crate) const fn on(self, happening: Happening) -> Self {
        let in_use = matches!(self.phase, Phase::Active | Phase::Paused);
        let (fails, connected) = match happening {
            Happening::Lost { resumable } => (!resumable, false),
            Happening::Regained => (false, true),
            #[cfg(feature = "in-process")]
            Happening::Stuck => (true, self.connected),
        };
        let phase = match fails && in_use {
            true => Phase::Failed,
            false => self.phase,
        };
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
            Self::StartQueue => "start_queue",
            Self::StopQueue => "stop_queue",
            Self::UpdateInterrupt => "update_interrupt",
            Self::Save => "save",
            Self::Restore => "restore",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Phase; 6] = [
        Phase::New,
        Phase::Negotiated,
        Phase::Active,
        Phase::Paused,
        Phase::Reset,
        Phase::Failed,
    ];

    /// The table in the documentation of the device, row by row.
    fn table(call: Call) -> [Option<Phase>; 6] {
        use Phase::{Active, Failed, Negotiated, New, Paused, Reset};
        let row = |row: [Option<Phase>; 6]| row;
        match call {
            Call::AckFeatures => row([
                Some(Negotiated),
                Some(Negotiated),
                None,
                None,
                Some(Negotiated),
                None,
            ]),
            Call::Activate => row([None, Some(Active), None, None, None, None]),
            Call::Pause => row([
                Some(New),
                Some(Negotiated),
                Some(Paused),
                None,
                Some(Reset),
                Some(Failed),
            ]),
            Call::Resume => row([
                Some(New),
                Some(Negotiated),
                None,
                Some(Active),
                Some(Reset),
                Some(Failed),
            ]),
            Call::Reset => row([Some(Reset); 6]),
            Call::StartQueue | Call::StopQueue | Call::UpdateInterrupt => {
                row([None, None, Some(Active), None, None, None])
            }
            Call::UpdateMemory => row([None, None, Some(Active), Some(Paused), None, None]),
            Call::Save => row([
                Some(New),
                Some(Negotiated),
                None,
                Some(Paused),
                Some(Reset),
                None,
            ]),
            Call::Restore => row([Some(Paused), None, None, None, Some(Paused), None]),
        }
    }

    #[test]
    fn calls_do_what_the_table_says() {
        for call in [
            Call::AckFeatures,
            Call::Activate,
            Call::Reset,
            Call::Pause,
            Call::Resume,
            Call::UpdateMemory,
            Call::StartQueue,
            Call::StopQueue,
            Call::UpdateInterrupt,
            Call::Save,
            Call::Restore,
        ] {
            for (phase, expected) in PHASES.into_iter().zip(table(call)) {
                for connected in [true, false] {
                    let lifecycle = Lifecycle { phase, connected };
                    let needs_daemon = match call {
                        Call::Save => phase == Phase::Paused,
                        Call::Restore => true,
                        _ => false,
                    };
                    let table_allows = expected.is_some();
                    let expected = expected.filter(|_| connected || !needs_daemon);
                    match lifecycle.after(call) {
                        Ok(next) => assert_eq!(Some(next), expected, "{call} of {lifecycle:?}"),
                        Err(error) => {
                            assert_eq!(expected, None, "{call} of {lifecycle:?}");
                            let text = error.to_string();
                            // The reason, which is not always that there is no daemon.
                            let state = match lifecycle.connected || table_allows {
                                true => lifecycle.state(),
                                false => Lifecycle::of(phase).state(),
                            };
                            let state = state.to_string();
                            assert!(text.contains(&call.to_string()) && text.contains(&state));
                        }
                    }
                }
            }
        }
    }

    #[cfg(feature = "in-process")]
    #[test]
    fn only_what_is_in_use_fails_with_its_filesystem() {
        for phase in PHASES {
            let before = Lifecycle {
                phase,
                connected: true,
            };
            let expected = match phase {
                Phase::Active | Phase::Paused => State::Failed,
                _ => before.state(),
            };
            assert_eq!(before.on(Happening::Stuck).state(), expected);
        }
    }

    #[test]
    fn only_what_is_in_use_fails_with_its_daemon() {
        for phase in PHASES {
            for resumable in [true, false] {
                let before = Lifecycle {
                    phase,
                    connected: true,
                };
                let lost = before.on(Happening::Lost { resumable });
                let in_use = matches!(phase, Phase::Active | Phase::Paused);
                let expected = match (in_use && !resumable, phase) {
                    (true, _) | (_, Phase::Failed) => State::Failed,
                    _ => State::Disconnected,
                };
                assert_eq!(lost.state(), expected, "{before:?}");
                let regained = lost.on(Happening::Regained);
                assert!(regained.connected);
                if expected == State::Disconnected {
                    assert_eq!(regained, before);
                }
            }
        }
    }
}
