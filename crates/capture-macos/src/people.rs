//! Whose a flow is, by the audit token that the kernel gave its process: no other process can have it.
#![allow(unsafe_code, reason = "proc_pidpath_audittoken has no safe form")]

use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::sync::{Mutex, PoisonError};

use nix::unistd::{Uid, User};
use objc2_foundation::NSData;

use crate::told::{self, AuditToken};

/// `PROC_PIDPATHINFO_MAXSIZE` of libproc.h.
const PATH_LIMIT: usize = 4 * 1024;
/// Accounts that are remembered; the directory service is slow.
const ACCOUNTS_LIMIT: usize = 1024;

unsafe extern "C" {
    /// libproc.h, since macOS 11: the path of the process that a token names.
    fn proc_pidpath_audittoken(token: *mut [u32; 8], buffer: *mut c_void, size: u32) -> c_int;
}

/// A token out of a flow's property.
pub(crate) fn token(bytes: &NSData) -> Option<AuditToken> {
    AuditToken::from_bytes(&bytes.to_vec())
}

/// The account of a token's user.
pub(crate) fn account(token: AuditToken) -> String {
    static KNOWN: Mutex<Option<HashMap<u32, String>>> = Mutex::new(None);
    let user = token.user();
    let known = |known: &HashMap<u32, String>| known.get(&user).cloned();
    if let Some(name) = KNOWN.lock().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(known) {
        return name;
    }
    // Not under the lock: it may ask a directory over the network.
    let found = User::from_uid(Uid::from_raw(user)).ok().flatten().map(|user| user.name);
    let name = found.unwrap_or_else(|| format!("uid:{user}"));
    let mut guard = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let accounts = guard.get_or_insert_default();
    if accounts.len() < ACCOUNTS_LIMIT {
        accounts.insert(user, name.clone());
    }
    name
}

/// The application's name: by its signature's identifier, else by its program.
pub(crate) fn application(identifier: Option<&str>, token: Option<AuditToken>) -> Option<String> {
    let path = || path(token?);
    match told::application(identifier, None) {
        None => told::application(None, path().as_deref()),
        named => named,
    }
}

fn path(token: AuditToken) -> Option<String> {
    let (mut words, mut buffer) = (token.0, vec![0_u8; PATH_LIMIT]);
    // SAFETY: the token is eight words, and the buffer as long as is said.
    let length =
        unsafe { proc_pidpath_audittoken(&raw mut words, buffer.as_mut_ptr().cast(), PATH_LIMIT as u32) };
    buffer.truncate(usize::try_from(length).ok()?);
    String::from_utf8(buffer).ok()
}
