//! What the documentation of a device says of its states.
#![allow(dead_code, reason = "not each test program uses it")]

use virtio_fs_device::{Call, State};

/// Where `call` leaves a device that is in `state`; `None` where it is not for that state.
pub(crate) fn table(call: Call, state: State) -> Option<State> {
    use State::{Active, Failed, Negotiated, New, Paused, Reset};
    match (call, state) {
        (Call::AckFeatures, New | Negotiated | Reset) => Some(Negotiated),
        (Call::Activate, Negotiated) => Some(Active),
        (Call::Pause, Active) => Some(Paused),
        (Call::Resume, Paused) => Some(Active),
        (Call::Pause | Call::Resume, New | Negotiated | Reset | Failed) => Some(state),
        (Call::Reset, _) => Some(Reset),
        (Call::UpdateMemory, Active | Paused) => Some(state),
        (Call::StartQueue | Call::StopQueue | Call::UpdateInterrupt, Active) => Some(state),
        (Call::Save, New | Negotiated | Paused | Reset) => Some(state),
        (Call::Restore, New | Reset) => Some(Paused),
        _ => None,
    }
}
