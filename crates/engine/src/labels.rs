//! Account and application names, each kept once: a flow that turns out to be nobody's has
//! then cost no allocation. Names that no flow has any more are forgotten.

use std::collections::HashSet;
use std::sync::Arc;

use toktra_protocol::event::TEXT_LIMIT;

/// Most names kept at once; beyond that a name is not shared but still given.
const LIMIT: usize = 1024;

/// The names in use.
#[derive(Default)]
pub(crate) struct Labels {
    names: HashSet<Arc<str>>,
}

impl Labels {
    /// The shared form of a name, cut to what an event may hold.
    pub(crate) fn share(&mut self, name: Option<&str>) -> Option<Arc<str>> {
        let name = name?;
        if let Some(known) = self.names.get(name) {
            return Some(Arc::clone(known));
        }
        let fit = fit(name);
        if let Some(known) = self.names.get(fit.as_str()) {
            return Some(Arc::clone(known));
        }
        let label: Arc<str> = fit.into();
        if self.names.len() < LIMIT {
            self.names.insert(Arc::clone(&label));
        }
        Some(label)
    }

    /// Forgets names that no flow has.
    pub(crate) fn sweep(&mut self) {
        self.names.retain(|name| Arc::strong_count(name) > 1);
    }
}

fn fit(name: &str) -> String {
    let mut text: String = name.chars().filter(|c| !c.is_control()).collect();
    while text.len() > TEXT_LIMIT {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_once_while_it_is_used() {
        let mut labels = Labels::default();
        let first = labels.share(Some("curl"));
        let second = labels.share(Some("curl"));
        assert!(Arc::ptr_eq(first.as_ref().unwrap(), second.as_ref().unwrap()));
        drop((first, second));
        labels.sweep();
        assert!(labels.names.is_empty());
        assert_eq!(labels.share(None), None);
    }

    #[test]
    fn control_characters_and_excess_are_cut() {
        let long = format!("a\nb{}", "é".repeat(200));
        let label = Labels::default().share(Some(&long)).unwrap();
        assert!(label.starts_with("ab") && label.len() <= TEXT_LIMIT);
    }
}
