//! Personal mode (Token Perks): what a user's own ledger consists of, which is not the organisation's.
//! [`control`] is between user and agent, [`local`] between extension and agent, [`wire`] crosses to the backend's vault, and [`month`] is the only
//! time in it.
//!
//! Invariants: no type here converts into one of [`crate::event`] or out of one (`apart` holds it), and no
//! message holds both; the units of a value (a [`crate::Minute`], a number of bytes) are all that they share.
//! No message to the backend names a device, a user or an account; a member is a secret of the user's own
//! making, and what it did is sealed before it goes there.

#[cfg(doctest)]
mod apart;
pub mod control;
pub mod local;
pub mod month;
pub mod wire;

pub use month::Month;
pub use wire::{
    Member, Perks, PersonalAck, PersonalBatch, PersonalError, PersonalLeave, PersonalPage, PersonalQuery,
    PersonalStanding, PersonalTotal, Sealed, Slot, StoredRecord,
};
