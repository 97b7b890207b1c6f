//! `enroll`: asks to be enrolled, and leaves what it asked with to the daemon where there is no answer yet.
//!
//! Key and token are stored before they are sent, so that whoever asks again, this command or the
//! daemon, asks as the same device; and the token leaves the configuration at that moment.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use toktra_identity::life::{self, Keep, Step};
use toktra_identity::{Application, Credential, DeviceKey, DeviceStore, Store as _};
use toktra_protocol::{Code, ToktraDomain};
use zeroize::Zeroizing;

use super::{
    AWAITS_APPROVAL, ENROLLED_ALREADY, FAILED, NOT_ENROLLED, REFUSED, UNREACHABLE, complain, runtime, say,
};
use crate::clock::{BackendTime, Clock, SKEW_LIMIT_S};
use crate::config::{self, Config, Source};
use crate::daemon::Places;
use crate::enrolment::{self, EnrolError};
use crate::tls;

#[derive(Args, Default)]
pub struct Enroll {
    /// The backend's domain, for example acme.example; else from the configuration.
    #[arg(long)]
    domain: Option<ToktraDomain>,
    /// The one-time token; else from the environment or the configuration.
    #[arg(long, env = "TOKTRA_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// PEM file of the authorities to trust instead of the machine's own.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Succeed without doing anything if the device is enrolled or no token is configured.
    #[arg(long)]
    if_needed: bool,
    /// Enrol a device that is enrolled already; it becomes a new device.
    #[arg(long)]
    again: bool,
}

impl fmt::Debug for Enroll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enroll").field("domain", &self.domain).field("ca", &self.ca).finish_non_exhaustive()
    }
}

/// Enrols the device; the exit status.
pub fn enroll(places: &Places, options: Enroll) -> anyhow::Result<u8> {
    let config = places.config.read()?;
    let store = DeviceStore::new(&places.state);
    let former = store.credential()?;
    if let Some(credential) = former.as_ref().filter(|_| !options.again) {
        let enrolled = credential.enrolled();
        if options.if_needed {
            return Ok(0);
        }
        complain(format_args!(
            "The device is enrolled with {} as {} already. To make it a new device, add --again.",
            enrolled.domain, enrolled.device
        ));
        return Ok(ENROLLED_ALREADY);
    }
    let if_needed = options.if_needed;
    let token_of_file = options.token.is_none() && config.token.is_some();
    let application = match application(&store, options, config)? {
        Ok(application) => application,
        Err(_) if if_needed => return Ok(0),
        Err(missing) => {
            complain(format_args!("{missing}, or in {}.", places.config));
            return Ok(NOT_ENROLLED);
        }
    };
    store.save_application(&application).context("nothing was sent")?;
    // A profile's token stays: it can only be taken back where it was given.
    if let (true, Source::File(path)) = (token_of_file, &places.config)
        && let Err(error) = config::remove_token(path)
    {
        complain(format_args!("{error:#}"));
    }
    let time = Arc::new(BackendTime::new(Clock::System));
    let outcome = runtime()?.block_on(enrolment::enrol(&application, &time, Clock::System));
    warn_of_skew(&time);
    match outcome {
        Ok(credential) => {
            store.save_credential(&credential).context(
                "the backend enrolled the device, but its credential cannot be stored; correct that and run the same command again",
            )?;
            welcome(&credential)
        }
        Err(error) => match store.credential()? {
            // The daemon, which saw the application too, was faster.
            Some(credential) if former.is_none_or(|former| !credential.is_of_one_enrolment(&former)) => {
                welcome(&credential)
            }
            _ => refused(&store, &error),
        },
    }
}

fn welcome(credential: &Credential) -> anyhow::Result<u8> {
    let enrolled = credential.enrolled();
    let department =
        enrolled.department.as_ref().map(|name| format!(", department {name}")).unwrap_or_default();
    say(format_args!(
        "Enrolled with {} as {}: {}{department}.",
        enrolled.domain, enrolled.device, enrolled.organisation
    ))?;
    Ok(0)
}

fn refused(store: &DeviceStore, error: &EnrolError) -> anyhow::Result<u8> {
    if error.code() == Some(Code::Pending) {
        say(format_args!(
            "The device awaits approval by an administrator. The agent goes on asking while it runs, and begins as soon as it is approved."
        ))?;
        return Ok(AWAITS_APPROVAL);
    }
    complain(format_args!("The device is not enrolled. {error}\n{}", error.next_step()));
    if error.is_temporary() {
        return Ok(UNREACHABLE);
    }
    let Some(code) = error.code() else { return Ok(FAILED) };
    // Else the daemon goes on with it: the token is nowhere else any more.
    if life::keep(Step::Enrol, code) == Keep::NotTheApplication {
        store.forget_application()?;
    }
    Ok(REFUSED)
}

/// Leaves to the daemon what is configured to ask with, if there is a token. For a daemon that may.
pub fn apply(store: &DeviceStore, config: Config) -> anyhow::Result<()> {
    if let Ok(application) = application(store, Enroll::default(), config)? {
        store.save_application(&application)?;
    }
    Ok(())
}

/// What to ask with, or what is missing. Who asks with the same token again is the same device.
fn application(
    store: &DeviceStore,
    options: Enroll,
    config: Config,
) -> anyhow::Result<Result<Application, &'static str>> {
    // One that cannot be read is replaced.
    let former = store.application().unwrap_or_default();
    let token = options.token.or(config.token).map(|token| Zeroizing::new(token.trim().to_owned()));
    let Some(token) = token.or_else(|| former.as_ref().map(|former| former.token.clone())) else {
        return Ok(Err("Give the one-time token with --token"));
    };
    let same = former.filter(|former| former.token == token);
    let known = same.as_ref().map(|former| former.domain.clone());
    let Some(domain) = options.domain.or(config.domain).or(known) else {
        return Ok(Err("Give the backend's domain with --domain"));
    };
    let same = same.filter(|former| former.domain == domain);
    let ca = match options.ca.or(config.ca) {
        Some(path) => Some(tls::read_ca(&path)?),
        None => same.as_ref().and_then(|former| former.ca.clone()),
    };
    let key = same.map_or_else(DeviceKey::generate, |former| Ok(former.key))?;
    Ok(Ok(Application { domain, ca, token, key }))
}

fn warn_of_skew(time: &BackendTime) {
    let ahead_s = time.ahead_s();
    if time.is_confirmed() && ahead_s.unsigned_abs() > SKEW_LIMIT_S {
        complain(format_args!(
            "This machine's clock differs from the backend's by {} s; set it.",
            ahead_s.unsigned_abs()
        ));
    }
}
