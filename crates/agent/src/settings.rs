//! Takes up what an administrator configures, at the start and whenever it changes, without a restart.
//!
//! What cannot be used is said, and what was in force before goes on. At the start nothing was in force, so
//! that nobody knows the administrator's privacy hours, and nothing is recorded until it is corrected.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::board::Board;
use crate::config::{Config, Source};

/// How often it is looked: a small file, or preferences that the system keeps in memory.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What is configured at the start.
pub fn take_up(source: &Source, board: &Board) -> Config {
    match source.read() {
        Ok(config) => {
            board.configure(&config);
            config
        }
        Err(error) => {
            tracing::error!("The configuration cannot be used: {error:#}");
            board.set_config_error(format!("{error:#}"));
            Config::default()
        }
    }
}

/// Takes up every change, until the agent stops.
pub async fn follow(source: Source, board: Arc<Board>, config: watch::Sender<Config>) {
    let mut refused = None;
    loop {
        sleep(LOOK_EVERY).await;
        look(&source, &board, &config, &mut refused);
    }
}

/// Looks once. `refused` is what was wrong the last time, so that it is logged once.
fn look(source: &Source, board: &Board, config: &watch::Sender<Config>, refused: &mut Option<String>) {
    match source.read() {
        Ok(new) => {
            // Also where it is as it was before a mistake.
            board.configure(&new);
            *refused = None;
            config.send_if_modified(|known| {
                let changed = *known != new;
                if changed {
                    tracing::info!("The configuration has changed.");
                    *known = new;
                }
                changed
            });
        }
        Err(error) => {
            let error = format!("{error:#}");
            if refused.as_ref() != Some(&error) {
                tracing::error!("The configuration cannot be used: {error}");
                board.set_config_error(error.clone());
                *refused = Some(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    struct Scene {
        source: Source,
        board: Board,
        config: watch::Sender<Config>,
        refused: Option<String>,
        directory: tempfile::TempDir,
    }

    impl Scene {
        fn new(text: &str) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("agent.toml");
            std::fs::write(&path, text).unwrap();
            let (source, board) = (Source::File(path), Board::new(Clock::System, None));
            let config = watch::Sender::new(take_up(&source, &board));
            Self { source, board, config, refused: None, directory }
        }

        fn write(&mut self, text: &str) {
            std::fs::write(self.directory.path().join("agent.toml"), text).unwrap();
            look(&self.source, &self.board, &self.config, &mut self.refused);
        }

        fn says(&self, words: &str) -> bool {
            self.board.status(None).degraded.iter().any(|said| said.contains(words))
        }
    }

    const NIGHTS: &str =
        "domain = \"acme.example\"\nprivacy_hours_start = \"00:00\"\nprivacy_hours_end = \"24:00\"\n";

    #[test]
    fn a_change_takes_effect_without_a_restart() {
        let mut scene = Scene::new("domain = \"acme.example\"\n");
        assert!(!scene.board.privacy().inside && !scene.says("configuration"));
        let mut news = scene.config.subscribe();
        scene.write(NIGHTS);
        assert!(scene.board.privacy().inside && news.has_changed().unwrap());
        news.borrow_and_update();
        scene.write(NIGHTS);
        assert!(!news.has_changed().unwrap(), "the same once more is no news");
        scene.write("domain = \"other.example\"\n");
        assert_eq!(scene.board.status(None).domain.as_deref(), Some("other.example"));
        assert!(!scene.board.privacy().inside);
    }

    #[test]
    fn a_mistake_is_shown_and_what_was_in_force_goes_on_until_it_is_corrected() {
        let mut scene = Scene::new(NIGHTS);
        for mistake in
            ["domain = \"https://acme.example\"\n", "domain = 7\n", "privacy_hours_start = \"6pm\"\n", "{"]
        {
            scene.write(mistake);
            assert!(scene.says("the configuration cannot be used"), "{mistake}");
            assert!(scene.board.privacy().inside, "{mistake}");
            assert_eq!(scene.board.status(None).domain.as_deref(), Some("acme.example"), "{mistake}");
        }
        scene.write("domain = \"acme.example\"\n");
        assert!(!scene.says("configuration") && !scene.board.privacy().inside);
    }

    #[test]
    fn with_a_mistake_from_the_start_nothing_is_recorded_and_the_agent_runs() {
        let mut scene = Scene::new("domain = \"https://acme.example\"\n");
        assert!(scene.says("the configuration cannot be used") && scene.board.privacy().inside);
        assert!(scene.board.seed(0, 0).privacy_unreadable);
        scene.write("domain = \"acme.example\"\n");
        assert!(!scene.says("configuration") && !scene.board.privacy().inside);
        assert!(!scene.board.seed(0, 0).privacy_unreadable);
    }
}
