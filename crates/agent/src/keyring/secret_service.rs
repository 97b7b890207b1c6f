//! The desktop's Secret Service (freedesktop.org Secret Service API 0.2) on the session's bus: GNOME
//! Keyring, KWallet, KeePassXC. One item with [`ATTRIBUTES`] in the default collection.
//!
//! The secret crosses the bus as it is (the algorithm `plain`): the session's bus is a socket of the user
//! alone, and whoever can read another's socket can ask for the secret itself.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::time::timeout;
use zbus::export::futures_core::Stream as _;
use zbus::zvariant::{DynamicType, ObjectPath, OwnedObjectPath, OwnedValue, Value};
use zbus::{Connection, MatchRule, Message, MessageStream};
use zeroize::Zeroizing;

use super::{Keyring, KeyringError, LABEL};

const SERVICE: &str = "org.freedesktop.secrets";
const PATH: &str = "/org/freedesktop/secrets";
const SERVICE_INTERFACE: &str = "org.freedesktop.Secret.Service";
const COLLECTION_INTERFACE: &str = "org.freedesktop.Secret.Collection";
const ITEM_INTERFACE: &str = "org.freedesktop.Secret.Item";
const PROMPT_INTERFACE: &str = "org.freedesktop.Secret.Prompt";
/// By which the item is found.
const ATTRIBUTES: [(&str, &str); 2] = [("application", "com.toktra.agent"), ("kind", "personal-key")];
/// A service that takes longer, its start included, does not work.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the user may take to unlock it.
const PROMPT_TIMEOUT: Duration = Duration::from_secs(120);
/// There is no object: what a prompt's path is where no prompt is needed.
const NOTHING: &str = "/";

/// The service, and a connection to it.
pub struct SecretService {
    runtime: Runtime,
    bus: Connection,
    session: OwnedObjectPath,
}

/// A secret as it crosses the bus: session, parameters of the encryption, value, media type.
type Secret = (OwnedObjectPath, Vec<u8>, Vec<u8>, String);

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Bus(#[from] zbus::Error),
    #[error("it does not answer")]
    Silent,
    #[error("it was not unlocked")]
    Locked,
    #[error("it has no default collection; make one with the desktop's password manager")]
    NoCollection,
}

impl From<zbus::zvariant::Error> for Failure {
    fn from(error: zbus::zvariant::Error) -> Self {
        Self::Bus(error.into())
    }
}

impl SecretService {
    /// The service of this session; `None` where there is none.
    pub fn of_session() -> Result<Option<Self>, KeyringError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| failed(&Failure::Bus(zbus::Error::InputOutput(error.into()))))?;
        let opened = runtime.block_on(async {
            let bus = timeout(CALL_TIMEOUT, Connection::session()).await.ok()?.ok()?;
            let asked = ("plain", Value::from(""));
            let reply = call(&bus, PATH, SERVICE_INTERFACE, "OpenSession", &asked).await.ok()?;
            let (_, session): (OwnedValue, OwnedObjectPath) = reply.body().deserialize().ok()?;
            Some((bus, session))
        });
        Ok(opened.map(|(bus, session)| Self { runtime, bus, session }))
    }

    /// The item, unlocked if need be.
    async fn item(&self) -> Result<Option<OwnedObjectPath>, Failure> {
        let attributes = HashMap::from(ATTRIBUTES);
        let reply = self.call(PATH, SERVICE_INTERFACE, "SearchItems", &attributes).await?;
        let (unlocked, locked): (Vec<OwnedObjectPath>, Vec<OwnedObjectPath>) = reply.body().deserialize()?;
        if let Some(item) = unlocked.into_iter().next() {
            return Ok(Some(item));
        }
        let Some(item) = locked.into_iter().next() else { return Ok(None) };
        self.unlock(&item).await?;
        Ok(Some(item))
    }

    async fn unlock(&self, object: &ObjectPath<'_>) -> Result<(), Failure> {
        let reply = self.call(PATH, SERVICE_INTERFACE, "Unlock", &vec![object]).await?;
        let (_, prompt): (Vec<OwnedObjectPath>, OwnedObjectPath) = reply.body().deserialize()?;
        self.prompted(&prompt).await
    }

    /// Lets the service ask the user, if it must.
    async fn prompted(&self, prompt: &ObjectPath<'_>) -> Result<(), Failure> {
        if prompt.as_str() == NOTHING {
            return Ok(());
        }
        let rule = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .interface(PROMPT_INTERFACE)?
            .member("Completed")?
            .path(prompt.to_owned())?
            .build();
        let mut completed = MessageStream::for_match_rule(rule, &self.bus, Some(1)).await?;
        self.call(prompt.as_str(), PROMPT_INTERFACE, "Prompt", &"").await?;
        let next = poll_fn(|context| Pin::new(&mut completed).poll_next(context));
        let signal = timeout(PROMPT_TIMEOUT, next).await.map_err(|_| Failure::Locked)?;
        let signal = signal.ok_or(Failure::Silent)??;
        let (dismissed, _): (bool, OwnedValue) = signal.body().deserialize()?;
        if dismissed { Err(Failure::Locked) } else { Ok(()) }
    }

    async fn read(&self) -> Result<Option<Zeroizing<String>>, Failure> {
        let Some(item) = self.item().await? else { return Ok(None) };
        let reply = self.call(item.as_str(), ITEM_INTERFACE, "GetSecret", &self.session).await?;
        let (_, _, value, _): Secret = reply.body().deserialize()?;
        let value = Zeroizing::new(value);
        // What is no text is no phrase, and is told so by its reader.
        Ok(Some(Zeroizing::new(String::from_utf8_lossy(&value).into_owned())))
    }

    async fn write(&self, phrase: &str) -> Result<(), Failure> {
        let reply = self.call(PATH, SERVICE_INTERFACE, "ReadAlias", &"default").await?;
        let collection: OwnedObjectPath = reply.body().deserialize()?;
        if collection.as_str() == NOTHING {
            return Err(Failure::NoCollection);
        }
        self.unlock(&collection).await?;
        let properties = HashMap::from([
            ("org.freedesktop.Secret.Item.Label", Value::from(LABEL)),
            ("org.freedesktop.Secret.Item.Attributes", Value::from(HashMap::from(ATTRIBUTES))),
        ]);
        let no_parameters: &[u8] = &[];
        let secret = (&self.session, no_parameters, phrase.as_bytes(), "text/plain");
        let replace = true;
        let asked = (properties, secret, replace);
        let reply = self.call(collection.as_str(), COLLECTION_INTERFACE, "CreateItem", &asked).await?;
        let (_, prompt): (OwnedObjectPath, OwnedObjectPath) = reply.body().deserialize()?;
        self.prompted(&prompt).await
    }

    async fn delete(&self) -> Result<(), Failure> {
        while let Some(item) = self.item().await? {
            let reply = self.call(item.as_str(), ITEM_INTERFACE, "Delete", &()).await?;
            let prompt: OwnedObjectPath = reply.body().deserialize()?;
            self.prompted(&prompt).await?;
        }
        Ok(())
    }

    async fn call<B>(&self, path: &str, interface: &str, method: &str, body: &B) -> Result<Message, Failure>
    where
        B: serde::Serialize + DynamicType,
    {
        call(&self.bus, path, interface, method, body).await
    }

    fn run<T>(&self, act: impl Future<Output = Result<T, Failure>>) -> Result<T, KeyringError> {
        self.runtime.block_on(act).map_err(|failure| failed(&failure))
    }
}

async fn call<B>(
    bus: &Connection,
    path: &str,
    interface: &str,
    method: &str,
    body: &B,
) -> Result<Message, Failure>
where
    B: serde::Serialize + DynamicType,
{
    let called = bus.call_method(Some(SERVICE), path, Some(interface), method, body);
    Ok(timeout(CALL_TIMEOUT, called).await.map_err(|_| Failure::Silent)??)
}

fn failed(failure: &Failure) -> KeyringError {
    let place = "the desktop's keyring".to_owned();
    match failure {
        Failure::Locked => KeyringError::Locked(place),
        other => KeyringError::Failed { place, reason: other.to_string() },
    }
}

impl Keyring for SecretService {
    fn place(&self) -> String {
        "the desktop's keyring".to_owned()
    }

    fn phrase(&self) -> Result<Option<Zeroizing<String>>, KeyringError> {
        self.run(self.read())
    }

    fn keep(&self, phrase: &str) -> Result<(), KeyringError> {
        self.run(self.write(phrase))
    }

    fn remove(&self) -> Result<(), KeyringError> {
        self.run(self.delete())
    }
}
