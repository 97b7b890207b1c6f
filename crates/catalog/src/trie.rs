//! A trie over the labels of patterns, from the right. A name is folded to lower case into a
//! buffer on the stack and walked label by label; where several branches cover a label the
//! most literal is tried first. Every step consumes a label and patterns have few labels, so
//! the walk is linear in the name's length.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::pattern::{Label, Pattern};

/// Longest host name, in bytes (RFC 1035, 2.3.4, without the root's dot).
const NAME_LIMIT: usize = 253;

/// Patterns and, for each, a number.
#[derive(Debug)]
pub(crate) struct Trie {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    literal: HashMap<Box<str>, usize, RandomState>,
    partial: Vec<Partial>,
    /// The value of a pattern that ends here.
    value: Option<usize>,
    /// The value of a pattern that ends here with `**`.
    deep: Option<usize>,
}

#[derive(Debug)]
struct Partial {
    prefix: Box<str>,
    suffix: Box<str>,
    node: usize,
}

impl Trie {
    pub(crate) fn new() -> Self {
        Self { nodes: vec![Node::default()] }
    }

    /// Adds a pattern; returns the value that the same pattern has already.
    pub(crate) fn insert(&mut self, pattern: &Pattern, value: usize) -> Option<usize> {
        let mut at = 0;
        for label in pattern.labels() {
            at = match label {
                Label::Literal(literal) => self.literal_child(at, literal),
                Label::Partial { prefix, suffix } => self.partial_child(at, prefix, suffix),
                Label::Deep => return keep_first(&mut self.nodes[at].deep, value),
            };
        }
        keep_first(&mut self.nodes[at].value, value)
    }

    /// The value of the most specific pattern that covers the name. A trailing dot is the same name.
    pub(crate) fn lookup(&self, name: &str) -> Option<usize> {
        let name = name.strip_suffix('.').unwrap_or(name);
        let mut buffer = [0; NAME_LIMIT];
        let folded = buffer.get_mut(..name.len())?;
        folded.copy_from_slice(name.as_bytes());
        folded.make_ascii_lowercase();
        let allowed = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
        if !folded.iter().all(allowed) {
            return None;
        }
        self.walk(0, std::str::from_utf8(folded).ok()?)
    }

    /// `rest` is what of the name is left of the labels already walked.
    fn walk(&self, at: usize, rest: &str) -> Option<usize> {
        let node = &self.nodes[at];
        let (left, label) = match rest.rsplit_once('.') {
            Some((left, label)) => (Some(left), label),
            None => (None, rest),
        };
        if label.is_empty() {
            return None;
        }
        let next = |child: usize| match left {
            Some(left) => self.walk(child, left),
            None => self.nodes[child].value,
        };
        let literal = node.literal.get(label).and_then(|&child| next(child));
        literal
            .or_else(|| {
                node.partial.iter().filter(|partial| partial.covers(label)).find_map(|p| next(p.node))
            })
            .or_else(|| node.deep.filter(|_| rest.split('.').all(|label| !label.is_empty())))
    }

    fn literal_child(&mut self, at: usize, literal: &str) -> usize {
        if let Some(&child) = self.nodes[at].literal.get(literal) {
            return child;
        }
        let child = self.add();
        self.nodes[at].literal.insert(literal.into(), child);
        child
    }

    fn partial_child(&mut self, at: usize, prefix: &str, suffix: &str) -> usize {
        let same = |partial: &&Partial| &*partial.prefix == prefix && &*partial.suffix == suffix;
        if let Some(partial) = self.nodes[at].partial.iter().find(same) {
            return partial.node;
        }
        let node = self.add();
        let siblings = &mut self.nodes[at].partial;
        siblings.push(Partial { prefix: prefix.into(), suffix: suffix.into(), node });
        // Most literal first; the catalogue's check makes sure that no two of the same length overlap.
        siblings.sort_by_key(|partial| std::cmp::Reverse(partial.prefix.len() + partial.suffix.len()));
        node
    }

    fn add(&mut self) -> usize {
        self.nodes.push(Node::default());
        self.nodes.len() - 1
    }
}

impl Partial {
    fn covers(&self, label: &str) -> bool {
        Label::Partial { prefix: &self.prefix, suffix: &self.suffix }.covers(label)
    }
}

fn keep_first(slot: &mut Option<usize>, value: usize) -> Option<usize> {
    match slot {
        Some(first) => Some(*first),
        None => {
            *slot = Some(value);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Labels compared one by one: what the trie must agree with.
    fn naive(patterns: &[Pattern], name: &str) -> Vec<usize> {
        let lower = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let labels: Vec<&str> = lower.rsplit('.').collect();
        if labels.iter().any(|label| label.is_empty()) || lower.len() > NAME_LIMIT {
            return Vec::new();
        }
        let covers = |pattern: &Pattern| {
            let wanted: Vec<Label<'_>> = pattern.labels().collect();
            let deep = wanted.last() == Some(&Label::Deep);
            let fits = if deep { labels.len() >= wanted.len() } else { labels.len() == wanted.len() };
            fits && wanted.iter().zip(&labels).all(|(want, label)| want.covers(label))
        };
        (0..patterns.len()).filter(|&index| covers(&patterns[index])).collect()
    }

    fn build(patterns: &[Pattern]) -> Trie {
        let mut trie = Trie::new();
        for (value, pattern) in patterns.iter().enumerate() {
            trie.insert(pattern, value);
        }
        trie
    }

    fn parse(texts: &[&str]) -> Vec<Pattern> {
        texts.iter().map(|text| Pattern::parse(text).unwrap()).collect()
    }

    #[test]
    fn the_most_literal_pattern_wins_and_others_are_a_way_back() {
        let trie = build(&parse(&["**.a.b", "*.a.b", "x-*.a.b", "x-1.a.b", "y.x-1.a.b"]));
        for (name, value) in
            [("x-1.a.b", 3), ("x-2.a.b", 2), ("z.a.b", 1), ("q.z.a.b", 0), ("y.x-1.a.b", 4), ("z.x-1.a.b", 0)]
        {
            assert_eq!(trie.lookup(name), Some(value), "{name}");
        }
        assert_eq!(trie.lookup("a.b"), None);
        assert_eq!(trie.lookup("x..a.b"), None);
        assert_eq!(trie.lookup(""), None);
        assert_eq!(trie.lookup("."), None);
    }

    proptest! {
        #[test]
        fn it_agrees_with_comparing_every_pattern(
            texts in proptest::collection::vec("(\\*\\*\\.)?([ab]|\\*|a\\*|\\*b|b\\*a)(\\.([ab]|\\*)){0,2}\\.[ab]\\.[ab]", 1..12),
            name in "[aAbB.]{0,12}",
        ) {
            let mut patterns: Vec<Pattern> = texts.iter().map(|text| Pattern::parse(text).unwrap()).collect();
            patterns.sort();
            patterns.dedup();
            let covering = naive(&patterns, &name);
            match build(&patterns).lookup(&name) {
                Some(value) => prop_assert!(covering.contains(&value)),
                None => prop_assert!(covering.is_empty(), "{covering:?}"),
            }
        }

        #[test]
        fn no_name_makes_it_panic(name in any::<String>()) {
            build(&parse(&["*.a.b", "**.c.d"])).lookup(&name);
        }
    }
}
