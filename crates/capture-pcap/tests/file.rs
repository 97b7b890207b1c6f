//! Both formats in both byte orders, and files that are cut, damaged or no captures at all.

mod support;

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use support::{ethernet, hello, ipv4, names, pcap, tcp};
use toktra_capture_pcap::{CaptureError, CaptureReader, RECORD_LIMIT, replay};

#[derive(Clone, Copy)]
struct Order(bool);

impl Order {
    fn u16(self, number: u16) -> [u8; 2] {
        if self.0 { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    fn u32(self, number: u32) -> [u8; 4] {
        if self.0 { number.to_be_bytes() } else { number.to_le_bytes() }
    }

    fn block(self, kind: u32, body: &[u8]) -> Vec<u8> {
        let body = [body, &vec![0; body.len().next_multiple_of(4) - body.len()]].concat();
        let length = self.u32(body.len() as u32 + 12);
        [&self.u32(kind)[..], &length, &body, &length].concat()
    }

    fn section(self) -> Vec<u8> {
        self.block(
            0x0a0d_0d0a,
            &[&self.u32(0x1a2b_3c4d)[..], &self.u16(1), &self.u16(0), &[0xff; 8]].concat(),
        )
    }

    fn interface(self, link: u16) -> Vec<u8> {
        self.block(1, &[&self.u16(link)[..], &[0; 2], &self.u32(0)].concat())
    }

    fn enhanced(self, interface: u32, packet: &[u8]) -> Vec<u8> {
        let length = self.u32(packet.len() as u32);
        self.block(6, &[&self.u32(interface)[..], &[0; 8], &length, &length, packet].concat())
    }
}

fn frame() -> Vec<u8> {
    ethernet(0x0800, &ip())
}

fn ip() -> Vec<u8> {
    ipv4(6, &tcp(1, 0x18, &hello()))
}

#[test]
fn pcapng_is_read_in_both_byte_orders_with_a_link_type_for_each_interface() {
    for order in [Order(false), Order(true)] {
        let blocks = [
            order.section(),
            order.interface(1),
            order.interface(101),
            order.block(4, &[0; 40]),
            order.enhanced(1, &ip()),
        ];
        assert_eq!(names(&blocks.concat()), ["test.example"]);
        let simple = order.block(3, &[&order.u32(frame().len() as u32)[..], &frame()].concat());
        assert_eq!(names(&[order.section(), order.interface(1), simple].concat()), ["test.example"]);
        let length = order.u32(frame().len() as u32);
        let body = [&order.u16(0)[..], &[0; 10], &length, &length, &frame()].concat();
        assert_eq!(
            names(&[order.section(), order.interface(1), order.block(2, &body)].concat()),
            ["test.example"]
        );
        let later_section =
            [Order(!order.0).section(), order.section(), order.interface(101), order.enhanced(0, &ip())];
        assert_eq!(names(&later_section.concat()), ["test.example"]);
    }
}

#[test]
fn classic_files_are_read_in_both_byte_orders_and_resolutions() {
    for (magic, order) in
        [(0xa1b2_c3d4, Order(true)), (0xa1b2_3c4d, Order(true)), (0xa1b2_c3d4, Order(false))]
    {
        let length = order.u32(frame().len() as u32);
        let header = [&order.u32(magic)[..], &[0; 16], &order.u32(1)].concat();
        let file = [&header[..], &order.u32(1), &order.u32(2), &length, &length, &frame()].concat();
        assert_eq!(names(&file), ["test.example"]);
    }
}

#[test]
fn each_kind_of_bad_file_has_its_error() {
    let error = |file: &[u8]| replay(file, |_| ()).1.unwrap_err();
    assert!(matches!(error(b""), CaptureError::UnknownFormat));
    assert!(matches!(error(b"#!/bin/sh and so on, which is no capture"), CaptureError::UnknownFormat));
    let good = pcap(1, &[frame()]);
    assert!(matches!(error(&good[..good.len() - 1]), CaptureError::Truncated { at: 24 }));
    assert!(matches!(error(&good[..30]), CaptureError::Truncated { at: 24 }));
    let mut long = good.clone();
    long[32..36].copy_from_slice(&(RECORD_LIMIT as u32 + 1).to_le_bytes());
    assert!(matches!(error(&long), CaptureError::Damaged { at: 24, .. }));
    let order = Order(false);
    let orphan = [order.section(), order.enhanced(0, &ip())].concat();
    assert!(matches!(error(&orphan), CaptureError::Damaged { at: 28, .. }));
}

#[test]
fn what_comes_before_damage_is_read_and_nothing_after_an_error() {
    let mut file = pcap(1, &[frame(), frame()]);
    file.truncate(file.len() - 1);
    assert_eq!(names(&file), ["test.example"]);
    let mut reader = CaptureReader::new(&file[..]);
    assert!(reader.next().unwrap().is_some());
    assert!(reader.next().is_err());
    assert!(matches!(reader.next(), Ok(None)));
}

#[test]
fn the_fuzzers_corpus_is_replayed() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/capture");
    let mut names_found = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        let file = fs::read(entry.unwrap().path()).unwrap();
        names_found += names(&file).len();
        for cut in (0..file.len()).step_by(10) {
            names(&file[..cut]);
        }
    }
    assert!(names_found >= 18);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, link in 0_u32..300) {
        names(&bytes);
        names(&pcap(link, &[bytes]));
    }

    #[test]
    fn no_change_to_a_good_file_makes_it_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20), is_ng: bool) {
        let order = Order(false);
        let mut file = if is_ng {
            [order.section(), order.interface(1), order.enhanced(0, &frame()), order.enhanced(0, &frame())].concat()
        } else {
            pcap(1, &[frame(), frame()])
        };
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        for name in names(&file) {
            prop_assert!(!name.is_empty());
        }
    }
}
