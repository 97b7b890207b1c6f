//! The order of budgets: the organisation's first, then departments, each before those below it, then
//! persons. And the departments in the same order, to choose from.

use std::collections::HashMap;

use toktra_protocol::budget::Scope;
use toktra_store::directory::{Department, Organisation};
use toktra_store::spend::ScopeKey;

/// A department to choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) id: String,
    pub(super) name: String,
    /// 0 at the top.
    pub(super) depth: usize,
}

/// The departments, parents first.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    places: Vec<Place>,
    positions: HashMap<String, usize>,
}

impl Tree {
    /// Of departments that come by name.
    pub(super) fn new(organisation: &Organisation, departments: Vec<Department>) -> Self {
        let mut below: HashMap<&str, Vec<&Department>> = HashMap::new();
        for department in &departments {
            let parent = department.parent_id.as_deref().unwrap_or(&organisation.id);
            below.entry(parent).or_default().push(department);
        }
        let mut places = Vec::new();
        // Whoever is taken is taken out, so that this ends whatever the rows say.
        let mut stack: Vec<_> =
            below.remove(organisation.id.as_str()).into_iter().flatten().rev().map(|top| (top, 0)).collect();
        while let Some((department, depth)) = stack.pop() {
            places.push(Place { id: department.id.clone(), name: department.name.clone(), depth });
            let children = below.remove(department.id.as_str()).into_iter().flatten().rev();
            stack.extend(children.map(|child| (child, depth + 1)));
        }
        let positions = places.iter().enumerate().map(|(at, place)| (place.id.clone(), at)).collect();
        Self { places, positions }
    }

    /// The departments, parents first.
    pub(super) fn places(&self) -> &[Place] {
        &self.places
    }

    /// Budgets sort by this; `name` is the scope's.
    pub(super) fn order(&self, scope: &ScopeKey, name: &str) -> (Scope, usize, String) {
        (scope.scope, self.positions.get(&*scope.id).copied().unwrap_or_default(), name.to_owned())
    }

    /// How far a scope is below the organisation.
    pub(super) fn depth(&self, scope: &ScopeKey) -> usize {
        match scope.scope {
            Scope::Organisation => 0,
            Scope::Department => self.positions.get(&*scope.id).map_or(1, |&at| self.places[at].depth + 1),
            Scope::User => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_department_comes_before_those_below_it_and_a_circle_does_no_harm() {
        let organisation = Organisation { id: "o".into(), name: "Acme".into(), created_at: 0 };
        let department = |id: &str, parent: Option<&str>| Department {
            id: id.into(),
            organisation_id: "o".into(),
            name: id.to_uppercase(),
            created_at: 0,
            parent_id: parent.map(Into::into),
        };
        let rows = vec![
            department("a", Some("m")),
            department("b", None),
            department("m", None),
            department("z", Some("a")),
            department("loop", Some("loop")),
        ];
        let tree = Tree::new(&organisation, rows);
        let shown: Vec<_> = tree.places().iter().map(|place| (place.id.as_str(), place.depth)).collect();
        assert_eq!(shown, [("b", 0), ("m", 0), ("a", 1), ("z", 2)]);
        let key = |scope, id: &str| ScopeKey { organisation: "o".into(), scope, id: id.into() };
        assert_eq!(tree.depth(&key(Scope::Department, "z")), 3);
        assert!(
            tree.order(&key(Scope::Organisation, "o"), "x") < tree.order(&key(Scope::Department, "b"), "a")
        );
        assert!(tree.order(&key(Scope::Department, "z"), "a") < tree.order(&key(Scope::User, "u"), "a"));
    }
}
