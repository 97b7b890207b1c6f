//! The menu's side of the agent's socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use toktra_protocol::local::{self, Answer, Ask, Frames, Status};
use toktra_protocol::personal::control::PersonalAsk;

/// Between attempts to reach an agent that is away: doubled from the first to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// The agent itself waits for the backend for less.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Keeps `heard` at what the agent last said, `None` while it is away. Never ends.
pub async fn follow(socket: PathBuf, heard: watch::Sender<Option<Arc<Status>>>) {
    let mut pause = PAUSES.0;
    loop {
        let lost = watch(&socket, &heard).await;
        if heard.send_replace(None).is_some() {
            tracing::info!("The agent is away: {lost:#}");
            pause = PAUSES.0;
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Watches until the agent goes; why it did.
async fn watch(socket: &Path, heard: &watch::Sender<Option<Arc<Status>>>) -> anyhow::Error {
    let watched = async {
        let (mut stream, mut frames) = (ask(socket, &Ask::Watch).await?, Frames::default());
        loop {
            match answer(&mut stream, &mut frames).await? {
                Answer::Status(status) => {
                    heard.send_replace(Some(Arc::from(status)));
                }
                Answer::Done { message: reason } | Answer::Refused { reason } => bail!(reason),
                Answer::Records(_) | Answer::Personal(_) => bail!("the agent answered something else"),
            }
        }
    };
    match watched.await {
        Ok(never) => never,
        Err(error) => error,
    }
}

/// Asks for more of a budget; the agent's words.
pub async fn request_more(socket: &Path, budget: String, reason: String) -> anyhow::Result<String> {
    let asked = async {
        let ask_for = Ask::RequestMore { budget: Some(budget), reason };
        let mut stream = ask(socket, &ask_for).await.context("the agent is not running")?;
        match answer(&mut stream, &mut Frames::default()).await? {
            Answer::Done { message } => Ok(message),
            Answer::Refused { reason } => bail!(reason),
            Answer::Status(_) | Answer::Records(_) | Answer::Personal(_) => {
                bail!("the agent answered something else")
            }
        }
    };
    timeout(ANSWER_TIMEOUT, asked).await.context("the agent does not answer")?
}

/// Puts windows in place of the user's own privacy hours.
pub async fn set_privacy(socket: &Path, windows: Vec<String>) -> anyhow::Result<()> {
    change(socket, &Ask::SetPrivacy { windows }).await
}

/// Changes personal mode.
pub async fn change_personal(socket: &Path, ask: PersonalAsk) -> anyhow::Result<()> {
    change(socket, &Ask::Personal(ask)).await
}

/// Asks for what is answered by the status that comes of it.
async fn change(socket: &Path, ask_for: &Ask) -> anyhow::Result<()> {
    let asked = async {
        let mut stream = ask(socket, ask_for).await.context("the agent is not running")?;
        match answer(&mut stream, &mut Frames::default()).await? {
            Answer::Status(_) => Ok(()),
            Answer::Refused { reason } => bail!(reason),
            Answer::Done { .. } | Answer::Records(_) | Answer::Personal(_) => {
                bail!("the agent answered something else")
            }
        }
    };
    timeout(ANSWER_TIMEOUT, asked).await.context("the agent does not answer")?
}

async fn ask(socket: &Path, ask: &Ask) -> anyhow::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(&local::encode(ask)?).await?;
    Ok(stream)
}

async fn answer(stream: &mut UnixStream, frames: &mut Frames) -> anyhow::Result<Answer> {
    let mut buffer = [0; 4096];
    loop {
        if let Some(answer) = frames.take()? {
            return Ok(answer);
        }
        let read = stream.read(&mut buffer).await?;
        anyhow::ensure!(read > 0, "it closed the connection");
        frames.push(&buffer[..read]);
    }
}
