//! macOS: `getpeereid`, `LOCAL_PEERTOKEN` and the Security framework, the directory service, the console.
#![allow(
    unsafe_code,
    reason = "getsockopt(2) of an audit token and the Security framework have no safe form"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::OnceLock;

use nix::unistd::{Uid, User, getpeereid};
use objc2_core_foundation::{CFData, CFDictionary, CFRetained, CFString};
use objc2_security::{
    SecCSFlags, SecCode, SecRequirement, SecStaticCode, kSecCodeInfoTeamIdentifier, kSecGuestAttributeAudit,
};

use crate::{Program, requirement};

/// `kSecCSSigningInformation` of SecCode.h.
const SIGNING_INFORMATION: SecCSFlags = SecCSFlags(1 << 1);
/// Belongs to whoever sits there.
pub(crate) const SEAT: &str = "/dev/console";
/// A mach audit token: eight words (`audit_token_t` of mach/message.h).
type AuditToken = [u32; 8];

pub(crate) fn user(socket: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(getpeereid(socket)?.0.as_raw())
}

pub(crate) fn check(socket: BorrowedFd<'_>, program: Program) -> io::Result<()> {
    let Some(team) = team() else { return Ok(()) };
    let denied = |what: &str| {
        let text = format!("the peer is not {} of team {team}: {what}", program.identifier());
        io::Error::new(io::ErrorKind::PermissionDenied, text)
    };
    let requirement = requirement(program, team).ok_or_else(|| denied("the team identifier is not one"))?;
    let token = audit_token(socket)?;
    is_satisfied(&token, &requirement).map_err(|status| denied(&format!("Security status {status}")))
}

pub(crate) fn is_signed() -> bool {
    team().is_some()
}

pub(crate) fn account(user: u32) -> Option<String> {
    User::from_uid(Uid::from_raw(user)).ok().flatten().map(|user| user.name)
}

pub(crate) fn user_named(name: &str) -> Option<u32> {
    User::from_name(name).ok().flatten().map(|user| user.uid.as_raw())
}

/// The console belongs to whoever is logged in there.
pub(crate) fn seated(console: &Path) -> Option<u32> {
    std::fs::metadata(console).ok().map(|console| console.uid())
}

/// The team that signed this process. It does not change while it runs.
fn team() -> Option<&'static str> {
    static TEAM: OnceLock<Option<String>> = OnceLock::new();
    TEAM.get_or_init(|| own_team().ok().flatten()).as_deref()
}

fn audit_token(socket: BorrowedFd<'_>) -> io::Result<AuditToken> {
    let mut token: AuditToken = [0; 8];
    let mut length = size_of::<AuditToken>() as libc::socklen_t;
    // SAFETY: the socket is open for as long as it is borrowed; the token takes `length` bytes of any value.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_LOCAL,
            libc::LOCAL_PEERTOKEN,
            token.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    if length as usize != size_of::<AuditToken>() {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    Ok(token)
}

/// Whether the process that a token names satisfies a requirement; else the Security framework's status.
fn is_satisfied(token: &AuditToken, requirement: &str) -> Result<(), i32> {
    let bytes: Vec<u8> = token.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let token = CFData::from_bytes(&bytes);
    // SAFETY: a constant of the framework.
    let attributes = CFDictionary::from_slices(&[unsafe { kSecGuestAttributeAudit }], &[&*token]);
    let mut code: *mut SecCode = std::ptr::null_mut();
    // SAFETY: no host is the kernel; the attributes are those of the documentation; `code` is written once.
    let status = unsafe {
        SecCode::copy_guest_with_attributes(
            None,
            Some(attributes.as_opaque()),
            SecCSFlags(0),
            NonNull::from(&mut code),
        )
    };
    let code = created(status, code)?;
    let mut parsed: *mut SecRequirement = std::ptr::null_mut();
    let text = CFString::from_str(requirement);
    // SAFETY: `parsed` is written once, with an object that is ours.
    let status =
        unsafe { SecRequirement::create_with_string(&text, SecCSFlags(0), NonNull::from(&mut parsed)) };
    let parsed = created(status, parsed)?;
    // SAFETY: both objects live.
    match unsafe { code.check_validity(SecCSFlags(0), Some(&parsed)) } {
        0 => Ok(()),
        status => Err(status),
    }
}

fn own_team() -> Result<Option<String>, i32> {
    let mut code: *mut SecCode = std::ptr::null_mut();
    // SAFETY: `code` is written once, with an object that is ours.
    let status = unsafe { SecCode::copy_self(SecCSFlags(0), NonNull::from(&mut code)) };
    let code = created(status, code)?;
    let mut on_disk: *const SecStaticCode = std::ptr::null();
    // SAFETY: the same.
    let status = unsafe { code.copy_static_code(SecCSFlags(0), NonNull::from(&mut on_disk)) };
    let on_disk = created(status, on_disk.cast_mut())?;
    let mut information: *const CFDictionary = std::ptr::null();
    // SAFETY: the same.
    let status = unsafe {
        SecCode::copy_signing_information(&on_disk, SIGNING_INFORMATION, NonNull::from(&mut information))
    };
    let information = created(status, information.cast_mut())?;
    // SAFETY: the dictionary's keys are strings and its values objects (SecCode.h); the key is a constant.
    let team = unsafe {
        information
            .cast_unchecked::<CFString, objc2_core_foundation::CFType>()
            .get(kSecCodeInfoTeamIdentifier)
    };
    Ok(team.and_then(|team| team.downcast::<CFString>().ok()).map(|team| team.to_string()))
}

/// An object that a function of the framework made for its caller.
fn created<T: objc2_core_foundation::Type>(status: i32, object: *mut T) -> Result<CFRetained<T>, i32> {
    match NonNull::new(object) {
        // SAFETY: by the create rule of Core Foundation it is ours.
        Some(object) if status == 0 => Ok(unsafe { CFRetained::from_raw(object) }),
        _ => Err(status),
    }
}
