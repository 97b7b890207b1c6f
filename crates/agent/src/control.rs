//! The command line's socket: everyone may ask for the status, watch it and ask for more of a
//! budget; root and the agent's account may ask for a flush; root and who sits at the machine may set
//! privacy hours; about personal mode, [`desk`] says who. Also what both sockets share:
//! binding, and whom to trust.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use toktra_protocol::local::{self, Answer, Ask, Frames};

use crate::board::Board;
use crate::exemption;
use crate::personal::desk;
use crate::privacy;
use crate::records::{self, Reader};
use crate::watchers::{self, Watchers};

/// Of these, sixteen are always left for those who ask once.
const CONNECTIONS: usize = 16 + watchers::LIMIT;
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// A flush may have to wait for several batches.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(60);

/// Binds a socket with this mode; one that a former agent left behind is replaced.
pub fn bind(path: &Path, mode: u32) -> anyhow::Result<UnixListener> {
    let failed = || format!("cannot listen on {}", path.display());
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).with_context(failed),
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(failed)?;
    fs::set_permissions(path, Permissions::from_mode(mode)).with_context(failed)?;
    Ok(listener)
}

/// Whether a peer is root or the agent's own account.
pub fn is_trusted(stream: &UnixStream) -> bool {
    let me = rustix::process::geteuid().as_raw();
    toktra_peer::user(stream).is_ok_and(|user| user == 0 || user == me)
}

fn uid(stream: &UnixStream) -> Option<u32> {
    stream.peer_cred().ok().map(|peer| peer.uid())
}

/// Serves command lines until the agent stops.
pub async fn serve(listener: UnixListener, board: Arc<Board>) {
    let mut connections = JoinSet::new();
    let watchers = Arc::new(Watchers::new(Arc::clone(&board)));
    let looking = Arc::clone(&watchers);
    connections.spawn(async move { looking.look().await });
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) if connections.len() <= CONNECTIONS => {
                let (board, watchers) = (Arc::clone(&board), Arc::clone(&watchers));
                connections.spawn(async move {
                    if let Err(error) = answer(stream, &board, &watchers).await {
                        tracing::debug!("A command line was not answered: {error:#}");
                    }
                });
            }
            Ok(_) => tracing::warn!("Too many command lines at once."),
            Err(error) => {
                tracing::warn!(%error, "The command line's socket failed.");
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn answer(mut stream: UnixStream, board: &Board, watchers: &Watchers) -> anyhow::Result<()> {
    let ask = timeout(ASK_TIMEOUT, read_ask(&mut stream)).await??;
    let answer = match ask {
        Ask::Status => Answer::Status(Box::new(board.status(uid(&stream)))),
        Ask::Flush if is_trusted(&stream) => flush(board).await,
        Ask::Flush => refused("only root may ask for a flush; run the command with sudo"),
        Ask::Watch => return watchers.serve(stream).await,
        Ask::Records { after } => {
            let reader = match stream.peer_cred() {
                Ok(_) if is_trusted(&stream) => Reader::All,
                Ok(peer) => Reader::of_user(peer.uid()),
                Err(error) => return Err(error.into()),
            };
            match records::page(&board.sent, board.spooler(), &reader, after).await {
                Ok(page) => Answer::Records(page),
                Err(error) => refused(&format!("the records cannot be read: {error:#}")),
            }
        }
        Ask::SetPrivacy { windows } => match stream.peer_cred() {
            Ok(peer) if privacy::may_set(peer.uid(), &board.seat) => set_privacy(board, &windows),
            _ => refused(
                "only who sits at this machine may set its privacy hours, or root; run the command with sudo",
            ),
        },
        Ask::Personal(ask) => desk::answer(board, stream.peer_cred()?.uid(), ask).await,
        Ask::RequestMore { budget, reason } => request_more(board, budget.as_deref(), &reason).await,
    };
    timeout(ASK_TIMEOUT, stream.write_all(&local::encode(&answer)?)).await??;
    Ok(())
}

fn set_privacy(board: &Board, windows: &[String]) -> Answer {
    match board.set_privacy(windows) {
        Ok(()) => Answer::Status(Box::new(board.status(None))),
        Err(error) => refused(&error.to_string()),
    }
}

async fn flush(board: &Board) -> Answer {
    if board.privacy().inside {
        return refused(
            "privacy hours last, and nothing is sent until they are over; see `toktra-agent privacy`",
        );
    }
    let Some(uplink) = board.flush() else { return refused(crate::board::NOT_ENROLLED) };
    let (done, wait) = oneshot::channel();
    let asked = async {
        uplink.send(done).await.ok()?;
        wait.await.ok()
    };
    match timeout(FLUSH_TIMEOUT, asked).await {
        Ok(Some(())) => Answer::Status(Box::new(board.status(None))),
        Ok(None) => refused("the agent is stopping; ask again in a moment"),
        Err(_) => refused("the backend takes long; the agent goes on, see `toktra-agent status`"),
    }
}

async fn request_more(board: &Board, budget: Option<&str>, reason: &str) -> Answer {
    match exemption::request_more(board, budget, reason).await {
        Ok(name) => Answer::Done {
            message: format!(
                "Your administrators were asked for more of {name}. You will see it here when they have decided."
            ),
        },
        Err(error) => refused(&error.to_string()),
    }
}

fn refused(reason: &str) -> Answer {
    Answer::Refused { reason: reason.to_owned() }
}

async fn read_ask(stream: &mut UnixStream) -> anyhow::Result<Ask> {
    let mut frames = Frames::default();
    let mut buffer = [0; 512];
    loop {
        if let Some(ask) = frames.take()? {
            return Ok(ask);
        }
        let read = stream.read(&mut buffer).await?;
        anyhow::ensure!(read > 0, "it went away");
        frames.push(&buffer[..read]);
    }
}
