//! The vault of a small backend, which fails as told.

use std::collections::{BTreeMap, VecDeque};

use toktra_protocol::personal::wire::{Body as _, LEAVE_PATH, LIST_PATH, RECORDS_PATH, TOTAL_PATH};
use toktra_protocol::personal::{
    Month, PersonalAck, PersonalBatch, PersonalLeave, PersonalPage, PersonalQuery, PersonalStanding,
    PersonalTotal, Sealed, Slot, StoredRecord,
};
use toktra_protocol::{Code, Problem};

use super::Next;

/// What the vault has, whoever's it is: a test has one member.
#[derive(Default)]
pub struct Vault {
    pub records: BTreeMap<Slot, Vec<Sealed>>,
    pub totals: BTreeMap<(Month, Slot), u64>,
    /// How many batches and totals came.
    pub asked: usize,
    /// What the month before left over.
    pub carried: u64,
    /// What becomes of the next batches.
    pub next: VecDeque<Next>,
    pub left: bool,
    /// Nobody who wants to leave is answered.
    pub away: bool,
}

impl Vault {
    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.values().map(Vec::len).sum()
    }

    /// `None`: the answer is lost.
    pub fn answer(&mut self, path: &str, body: &[u8], enrolled: bool) -> Option<Result<Vec<u8>, Problem>> {
        let refused = Problem::new(Code::PerksNotEnrolled, "Ask an administrator.");
        let done = |value: serde_json::Value| Some(Ok(serde_json::to_vec(&value).unwrap()));
        match path {
            RECORDS_PATH | TOTAL_PATH if !enrolled => Some(Err(refused)),
            RECORDS_PATH => {
                self.asked += 1;
                let next = self.next.pop_front();
                if let Some(Next::Refuse(code)) = next {
                    return Some(Err(Problem::new(code, "As told.")));
                }
                let acknowledged = match self.book(PersonalBatch::decode(body).unwrap()) {
                    Ok(acknowledged) => acknowledged,
                    Err(problem) => return Some(Err(problem)),
                };
                if next.is_some() {
                    return None;
                }
                done(serde_json::to_value(PersonalAck { acknowledged }).unwrap())
            }
            TOTAL_PATH => {
                self.asked += 1;
                let total = PersonalTotal::decode(body).unwrap();
                let known = self.totals.entry((total.month, total.slot)).or_default();
                *known = total.tokens.max(*known);
                let of_others = |(at, _): &(&(Month, Slot), &u64)| at.0 == total.month && at.1 != total.slot;
                let others = self.totals.iter().filter(of_others).map(|(_, tokens)| tokens).sum();
                done(serde_json::to_value(PersonalStanding { others, carried: self.carried }).unwrap())
            }
            LIST_PATH => {
                let query = PersonalQuery::decode(body).unwrap();
                let all = self.records.iter().flat_map(|(slot, records)| {
                    records.iter().zip(1..).map(|(sealed, number)| (*slot, number, sealed.clone()))
                });
                let all = all.zip(1_u64..).map(|((slot, number, sealed), place)| StoredRecord {
                    place,
                    slot,
                    number,
                    sealed,
                });
                let records: Vec<_> = all.filter(|record| record.place > query.after).take(7).collect();
                let next = records.last().map_or(query.after, |record| record.place);
                let more = records.len() == 7;
                done(serde_json::to_value(PersonalPage { records, next, more }).unwrap())
            }
            LEAVE_PATH => {
                PersonalLeave::decode(body).unwrap();
                if self.away {
                    return None;
                }
                self.records.clear();
                self.left = true;
                Some(Ok(Vec::new()))
            }
            path => panic!("asked for {path}"),
        }
    }

    fn book(&mut self, batch: PersonalBatch) -> Result<u64, Problem> {
        let known = self.records.entry(batch.slot).or_default();
        let count = known.len() as u64;
        if batch.first > count + 1 {
            let problem = Problem::new(Code::BatchOrder, "There is a gap.");
            return Err(Problem { acknowledged: Some(count), ..problem });
        }
        known.extend(batch.records.into_iter().skip((count + 1 - batch.first) as usize));
        Ok(known.len() as u64)
    }
}
