//! What may be told of months, over random histories: people who use personal mode on several devices
//! and under several keys, change tiers, leave and come back; months that close in any order, totals
//! that come too late, and looks at the sums at any time.
//!
//! How a figure's people are known exactly: every growth of a total is a power of two of its own in its
//! month, so that the digits of a sum say whose use is in it. The claim, in full: let each such growth
//! be an unknown. No linear combination of all figures that were ever told (all months, all tiers, all
//! moments) is a combination of the unknowns of one to four people alone.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use toktra_protocol::personal::{Member, Month, Slot};
use toktra_vault_store::sums::PEOPLE;
use toktra_vault_store::totals::Claim;
use toktra_vault_store::{Newcomer, Pseudonym, VaultError, VaultStore, closing, leaving, totals};

const USERS: usize = 10;
const ACME: &str = "acme";
/// Powers of two in a month, so that no total exceeds its limit.
const GROWTHS: u32 = 38;

#[derive(Clone, Debug)]
enum Step {
    /// A user's key says that a device used more.
    Use { user: usize, key: u8, slot: u8, month: i32, tier: usize },
    /// A user leaves under a key.
    Leave { user: usize, key: u8 },
    /// The months before this one end.
    Close { before: i32 },
    /// Totals of closed months before this one go.
    Forget { before: i32 },
}

fn step() -> impl Strategy<Value = Step> {
    // Most people have one key.
    let key = prop_oneof![4 => Just(0u8), 1 => 1..3u8];
    prop_oneof![
        30 => (0..USERS, key.clone(), 0..2u8, 0..3, 0..4usize)
            .prop_map(|(user, key, slot, month, tier)| Step::Use { user, key, slot, month, tier }),
        2 => (0..USERS, key).prop_map(|(user, key)| Step::Leave { user, key }),
        2 => (0..4).prop_map(|before| Step::Close { before }),
        1 => (0..4).prop_map(|before| Step::Forget { before }),
    ]
}

fn month(number: i32) -> Month {
    Month::new(2026, 11).unwrap().plus(number).unwrap()
}

fn member(user: usize, key: u8) -> Pseudonym {
    let mut secret = [key; 32];
    secret[0] = u8::try_from(user).unwrap();
    Pseudonym::of(&Member::new(secret))
}

/// What the world outside knows.
#[derive(Default)]
struct World {
    known: BTreeSet<usize>,
    /// What each device says of its month.
    said: BTreeMap<(usize, u8, u8, i32), u64>,
    /// Whose each growth is, by month.
    growths: BTreeMap<i32, Vec<usize>>,
    /// Every figure that was ever told, by month and what it was called.
    told: BTreeMap<(Month, Option<String>), u64>,
    /// Months of which something was told, or could have been: nothing may be told of them later.
    over: BTreeSet<Month>,
}

impl World {
    async fn take(&mut self, vault: &VaultStore, step: &Step) {
        match *step {
            Step::Use { user, key, slot, month: at, tier } => {
                let growths = self.growths.entry(at).or_default();
                let Ok(bit @ 0..GROWTHS) = u32::try_from(growths.len()) else { return };
                let before = self.said.get(&(user, key, slot, at)).copied().unwrap_or_default();
                let tokens = before + (1 << bit);
                let tier = [None, Some("a"), Some("b"), Some("c")][tier];
                let claim = Claim { slot: Slot::new([slot; 16]), month: month(at), tokens, tier };
                let known = &mut self.known;
                let newcomer = || if known.insert(user) { Newcomer::Person } else { Newcomer::OtherName };
                match totals::note(vault, ACME, &member(user, key), claim, newcomer).await {
                    Ok(_) => {
                        growths.push(user);
                        self.said.insert((user, key, slot, at), tokens);
                    }
                    Err(VaultError::Closed) => assert!(self.over.contains(&month(at))),
                    Err(error) => panic!("{error:?}"),
                }
            }
            Step::Leave { user, key } => {
                leaving::leave(vault, ACME, &member(user, key)).await.unwrap();
                self.said.retain(|&(of, its, ..), _| (of, its) != (user, key));
            }
            Step::Close { before } => {
                closing::close(vault, ACME, month(before)).await.unwrap();
                self.look(vault, before).await;
            }
            Step::Forget { before } => closing::forget(vault, ACME, month(before)).await.unwrap(),
        }
    }

    /// What is told is told once and for all.
    async fn look(&mut self, vault: &VaultStore, closed_before: i32) {
        let told = closing::told(vault, ACME).await.unwrap();
        assert!(told.len() >= self.told.len(), "what was told is told no more");
        for (of, sum) in told {
            let known = self.told.insert((of, sum.tier), sum.tokens);
            assert_eq!(known.unwrap_or(sum.tokens), sum.tokens, "a figure changed");
            assert!(known.is_some() || !self.over.contains(&of), "a figure came late");
        }
        let with_use =
            self.growths.iter().filter(|(at, growths)| **at < closed_before && !growths.is_empty());
        self.over.extend(with_use.map(|(&at, _)| month(at)));
    }

    /// Each figure as its coefficients over every growth of every month.
    fn figures(&self) -> (Vec<Vec<i128>>, Vec<usize>) {
        let owners: Vec<usize> = self.growths.values().flatten().copied().collect();
        let rows = self.told.iter().map(|((of, _), &tokens)| {
            let coefficients = self.growths.iter().flat_map(|(&at, growths)| {
                (0..growths.len()).map(move |bit| i128::from(month(at) == *of && tokens >> bit & 1 == 1))
            });
            coefficients.collect()
        });
        (rows.collect(), owners)
    }

    fn check(&self) {
        for ((of, _), &tokens) in &self.told {
            let growths = self.growths.iter().find(|(at, _)| month(**at) == *of).unwrap().1;
            assert!(tokens < 1 << growths.len(), "a figure counts something twice");
        }
        let (rows, owners) = self.figures();
        let all = rank(rows.clone());
        for few in subsets(PEOPLE - 1) {
            let others = rows.iter().map(|row| {
                let kept = row.iter().zip(&owners).filter(|(_, owner)| !few.contains(owner));
                kept.map(|(coefficient, _)| *coefficient).collect()
            });
            // A combination that only these few are in is one that vanishes on all others.
            assert_eq!(rank(others.collect()), all, "the figures tell of {few:?} alone");
        }
    }
}

/// Every set of so many users; what holds for it holds for the smaller ones in it.
fn subsets(size: usize) -> Vec<BTreeSet<usize>> {
    let of_size = |mask: &u32| mask.count_ones() as usize == size;
    let set = |mask: u32| (0..USERS).filter(|user| mask >> user & 1 == 1).collect();
    (0..1u32 << USERS).filter(of_size).map(set).collect()
}

/// Rank over the rationals, without a fraction (Bareiss): of zeros and ones, few rows, so no overflow.
fn rank(mut rows: Vec<Vec<i128>>) -> usize {
    let (mut rank, mut divisor) = (0, 1);
    for column in 0..rows.first().map_or(0, Vec::len) {
        let Some(pivot) = (rank..rows.len()).find(|&row| rows[row][column] != 0) else { continue };
        rows.swap(rank, pivot);
        let (done, below) = rows.split_at_mut(rank + 1);
        let top = &done[rank];
        for row in below {
            let factor = row[column];
            for (entry, of_top) in row.iter_mut().zip(top) {
                *entry = (*entry * top[column] - factor * of_top) / divisor;
            }
        }
        divisor = top[column];
        rank += 1;
    }
    rank
}

async fn live(steps: &[Step]) -> World {
    let directory = tempfile::tempdir().unwrap();
    let vault = VaultStore::open(&directory.path().join("vault.db")).await.unwrap();
    let mut world = World::default();
    for step in steps {
        world.take(&vault, step).await;
    }
    world.take(&vault, &Step::Close { before: 4 }).await;
    vault.close().await;
    world
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_is_told_tells_of_fewer_than_five_people(steps in proptest::collection::vec(step(), 20..110)) {
        runtime().block_on(live(&steps)).check();
    }
}

/// The control: the histories have figures, and the check sees one too many.
#[test]
fn a_figure_of_four_people_would_be_noticed() {
    let steps: Vec<_> =
        (0..9).map(|user| Step::Use { user, key: 0, slot: 0, month: 0, tier: 1 + user / 5 }).collect();
    let mut world = runtime().block_on(live(&steps));
    world.check();
    assert_eq!(world.told.len(), 1, "the four are taken in");
    world.told.insert((month(0), Some("a alone".into())), 0b1_1111);
    assert!(std::panic::catch_unwind(|| world.check()).is_err());
}
