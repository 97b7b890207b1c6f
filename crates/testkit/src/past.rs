//! A backend that lives in the past, in this process: what it issues is as old as it would be by
//! now. Nothing that ships has a way to set its clock.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use toktra_pki::PassphraseFile;
use toktra_protocol::UnixSeconds;
use toktra_server::serve::Server;
use toktra_server::{App, Clock, SharedApp};

/// A server that runs until [`Past::end`].
#[derive(Debug)]
pub struct Past {
    app: SharedApp,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Past {
    /// Serves a data directory on a port of loopback, so long ago.
    pub fn serve(data: &Path, port: u16, age: Duration) -> anyhow::Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let clock = Clock::Fixed(UnixSeconds(now.saturating_sub(age).as_secs()));
        let data = data.to_owned();
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            runtime.block_on(async {
                let passphrase = PassphraseFile::choose(None, None, &data);
                let app = App::open(&data, &passphrase, clock).await?;
                let server = Server::bind(Arc::clone(&app), ([127, 0, 0, 1], port).into()).await?;
                let _ = ready.send(app);
                server.run().await;
                Ok(())
            })
        });
        match is_ready.recv() {
            Ok(app) => Ok(Self { app, thread }),
            Err(_) => {
                thread.join().map_err(|_| anyhow::anyhow!("the server panicked"))??;
                anyhow::bail!("the server ended")
            }
        }
    }

    /// Stops it.
    pub fn end(self) -> anyhow::Result<()> {
        self.app.stop.send_replace(true);
        self.thread.join().ok().context("the server panicked")?
    }
}
