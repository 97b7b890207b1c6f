//! Personal mode (Token Perks): what a user's own ledger consists of, which is not the organisation's.
//! [`wire`] crosses to the backend's vault, [`month`] is the only time in it.
//!
//! Invariants: nothing here converts into a corporate type or out of one, and no message holds both.
//! No message names a device, a user or an account; a member is a secret of the user's own making, and
//! what it did is sealed before it comes here.

pub mod month;
pub mod wire;

pub use month::Month;
pub use wire::{
    Member, Perks, PersonalAck, PersonalBatch, PersonalError, PersonalLeave, PersonalPage, PersonalQuery,
    PersonalStanding, PersonalTotal, Sealed, Slot, StoredRecord,
};
