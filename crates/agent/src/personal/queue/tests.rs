//! The queue as its module promises it: order, crashes, damage, limits.

use proptest::prelude::*;
use toktra_protocol::personal::wire::SEALED_HEAD;

use super::*;

const RUN: Uuid = Uuid::from_u128(7);

fn slot(byte: u8) -> Slot {
    Slot::new([byte; 16])
}

fn november() -> Month {
    "2026-11".parse().unwrap()
}

fn sealed(number: u64) -> Sealed {
    Sealed::new([SEALED_HEAD, number.to_string().as_bytes()].concat()).unwrap()
}

fn incoming(numbers: impl IntoIterator<Item = u64>) -> Vec<Incoming> {
    let one = |number| Incoming {
        number,
        month: Some(november()),
        tokens: PersonalEstimate { low: 1, point: 2, high: 3 },
        lost: 0,
        sealed: sealed(number),
    };
    numbers.into_iter().map(one).collect()
}

fn low(queue: &Queue) -> u64 {
    queue.totals().iter().map(|total| total.used.low).sum()
}

fn waiting(queue: &mut Queue) -> Vec<Sealed> {
    queue.peek(usize::MAX, slot(99)).unwrap().map(|batch| batch.records).unwrap_or_default()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn records_wait_in_order_until_the_backend_has_them_and_count_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut queue = Queue::open(directory.path(), slot(1)).unwrap();
    assert_eq!(queue.append(RUN, incoming(1..=5)).unwrap(), 5);
    assert_eq!(queue.append(RUN, incoming(3..=6)).unwrap(), 6, "three come again");
    let batch = queue.peek(4, slot(2)).unwrap().unwrap();
    assert_eq!((batch.slot, batch.first, batch.records.len()), (slot(1), 1, 4));
    assert_eq!(batch.records[3], sealed(4));
    queue.acknowledge(slot(1), 4).unwrap();
    assert_eq!(queue.peek(4, slot(2)).unwrap().unwrap().first, 5);
    drop(queue);
    let mut again = Queue::open(directory.path(), slot(3)).unwrap();
    assert_eq!((again.highest(RUN), again.waiting(), low(&again)), (6, 2, 6));
    assert_eq!(again.peek(4, slot(2)).unwrap().unwrap().first, 5);
    again.acknowledge(slot(1), 9).unwrap();
    assert_eq!((again.waiting(), again.slot()), (0, slot(1)));
    again.append(RUN, incoming(7..=7)).unwrap();
    assert_eq!(again.peek(4, slot(2)).unwrap().unwrap().first, 10, "the backend's count holds");
}

#[test]
fn a_crash_between_any_two_files_costs_nothing_that_was_acknowledged_and_counts_nothing_twice() {
    // What lies on disk after each write of an append, with the state of before and of after it.
    let directory = tempfile::tempdir().unwrap();
    let (before, after) = (directory.path().join("before"), directory.path().join("after"));
    let mut queue = Queue::open(&before, slot(1)).unwrap();
    queue.append(RUN, incoming(1..=2)).unwrap();
    drop(queue);
    copy(&before, &after);
    let mut queue = Queue::open(&after, slot(1)).unwrap();
    queue.append(RUN, incoming(3..=5)).unwrap();
    for written in 0..=3 {
        let crashed = directory.path().join(format!("crashed-{written}"));
        copy(&before, &crashed);
        for place in 2..2 + written {
            fs::copy(path(&after, place), path(&crashed, place)).unwrap();
        }
        fs::write(crashed.join(".new-half"), b"toktra").unwrap();
        let mut queue = Queue::open(&crashed, slot(2)).unwrap();
        assert_eq!((queue.highest(RUN), queue.waiting()), (2, 2), "{written}");
        assert!(!crashed.join(".new-half").exists());
        // The extension has no acknowledgement and says them again.
        queue.append(RUN, incoming(3..=5)).unwrap();
        assert_eq!(waiting(&mut queue), (1..=5).map(sealed).collect::<Vec<_>>());
        assert_eq!((low(&queue), queue.slot()), (5, slot(1)));
    }
    // And of an acknowledgement: the state is there, some files are yet to go.
    let mut queue = Queue::open(&after, slot(1)).unwrap();
    let stale = directory.path().join("stale");
    copy(&after, &stale);
    queue.acknowledge(slot(1), 3).unwrap();
    fs::copy(after.join(STATE), stale.join(STATE)).unwrap();
    let mut queue = Queue::open(&stale, slot(2)).unwrap();
    assert_eq!(waiting(&mut queue), [sealed(4), sealed(5)]);
    assert_eq!(queue.peek(9, slot(2)).unwrap().unwrap().first, 4);
}

#[test]
fn damage_costs_what_was_damaged_and_begins_a_new_slot() {
    let directory = tempfile::tempdir().unwrap();
    let mut queue = Queue::open(directory.path(), slot(1)).unwrap();
    queue.append(RUN, incoming(1..=4)).unwrap();
    fs::write(path(directory.path(), 1), b"not sealed").unwrap();
    let batch = queue.peek(9, slot(2)).unwrap().unwrap();
    assert_eq!((batch.slot, batch.first), (slot(2), 1));
    assert_eq!(batch.records, [1, 3, 4].map(sealed));
    assert_eq!(queue.dropped(), 1);
    drop(queue);
    fs::remove_file(
        list(directory.path()).unwrap().first().map(|&place| path(directory.path(), place)).unwrap(),
    )
    .unwrap();
    let mut queue = Queue::open(directory.path(), slot(3)).unwrap();
    assert_eq!((queue.slot(), queue.dropped()), (slot(3), 2));
    assert_eq!(waiting(&mut queue), [3, 4].map(sealed));
    drop(queue);
    fs::write(directory.path().join(STATE), b"{").unwrap();
    let mut queue = Queue::open(directory.path(), slot(4)).unwrap();
    assert_eq!((queue.slot(), queue.highest(RUN)), (slot(4), 0));
    assert_eq!(waiting(&mut queue), [3, 4].map(sealed), "what waits is kept");
}

#[test]
fn a_backend_that_was_set_back_is_sent_what_waits_in_a_new_slot() {
    let directory = tempfile::tempdir().unwrap();
    let mut queue = Queue::open(directory.path(), slot(1)).unwrap();
    queue.append(RUN, incoming(1..=3)).unwrap();
    queue.acknowledge(slot(1), 2).unwrap();
    queue.begin_slot(slot(2), 0).unwrap();
    let batch = queue.peek(9, slot(9)).unwrap().unwrap();
    assert_eq!((batch.slot, batch.first, batch.records.len()), (slot(2), 1, 1));
    queue.acknowledge(slot(1), 3).unwrap();
    assert_eq!(queue.waiting(), 1, "an answer for the old slot is none for the new");
    assert!(queue.totals().is_empty(), "the backend counts the old slot with the other devices");
}

#[test]
fn what_finds_no_room_is_counted_and_its_tokens_too() {
    let directory = tempfile::tempdir().unwrap();
    let mut queue = Queue::open(directory.path(), slot(1)).unwrap();
    queue.waiting = (0..RECORDS_LIMIT as u64).collect();
    queue.state.next = RECORDS_LIMIT as u64;
    queue.append(RUN, incoming(1..=2)).unwrap();
    assert_eq!((queue.dropped(), low(&queue), queue.highest(RUN)), (2, 2, 2));
    assert_eq!(queue.waiting(), RECORDS_LIMIT as u64);
}

proptest! {
    // Each step waits for the disk several times.
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn whatever_comes_and_goes_each_record_is_sent_once_in_order(
        steps in proptest::collection::vec((0..4_u8, 1..6_u64), 1..40),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut queue = Queue::open(directory.path(), slot(1)).unwrap();
        let (mut made, mut sent, mut acknowledged) = (0, Vec::new(), 0);
        for (step, count) in steps {
            match step {
                0 => {
                    // Some of them again.
                    queue.append(RUN, incoming(made.max(1)..=made + count)).unwrap();
                    made += count;
                }
                1 => if let Some(batch) = queue.peek(count as usize, slot(9)).unwrap() {
                    prop_assert_eq!(batch.first, acknowledged + 1);
                    acknowledged += batch.records.len() as u64;
                    sent.extend(batch.records);
                    queue.acknowledge(slot(1), acknowledged).unwrap();
                },
                // A crash.
                2 => queue = Queue::open(directory.path(), slot(9)).unwrap(),
                _ => prop_assert_eq!(queue.list(0, usize::MAX).len() as u64, queue.waiting()),
            }
        }
        sent.extend(waiting(&mut queue));
        prop_assert_eq!(sent, (1..=made).map(sealed).collect::<Vec<_>>());
        prop_assert_eq!(low(&queue), made);
    }
}
