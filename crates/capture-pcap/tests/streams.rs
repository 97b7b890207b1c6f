//! TCP streams as captures have them: split, out of order, repeated, wrapped, and with ports used again.

mod support;

use support::{hello, ipv4, names, pcap, tcp};

const SYN: u8 = 0x02;
const DATA: u8 = 0x18;

fn names_of(segments: &[Vec<u8>]) -> Vec<String> {
    let frames: Vec<_> = segments.iter().map(|segment| ipv4(6, segment)).collect();
    names(&pcap(101, &frames))
}

#[test]
fn a_hello_split_anywhere_is_found_in_order_and_out_of_order_and_across_the_end_of_numbers() {
    let hello = hello();
    for start in [1, u32::MAX - 20, u32::MAX] {
        for cut in 1..hello.len() {
            let (first, rest) = hello.split_at(cut);
            let syn = tcp(start.wrapping_sub(1), SYN, &[]);
            let (first, rest) = (tcp(start, DATA, first), tcp(start.wrapping_add(cut as u32), DATA, rest));
            let found = names_of(&[syn.clone(), first.clone(), first.clone(), rest.clone()]);
            assert_eq!(found, ["test.example"], "in order, cut at {cut}");
            assert_eq!(names_of(&[syn, rest, first]), ["test.example"], "out of order, cut at {cut}");
        }
    }
}

#[test]
fn a_second_hello_is_printed_only_for_a_new_connection() {
    let hello = hello();
    let (syn, data) = (tcp(0, SYN, &[]), tcp(1, DATA, &hello));
    let again = tcp(1 + hello.len() as u32, DATA, &hello);
    assert_eq!(names_of(&[syn.clone(), data.clone(), again, syn.clone(), data.clone()]).len(), 1);
    let (new_syn, new_data) = (tcp(70_000, SYN, &[]), tcp(70_001, DATA, &hello));
    assert_eq!(names_of(&[syn, data, new_syn, new_data]).len(), 2);
}

#[test]
fn a_stream_without_its_syn_and_one_with_a_hello_in_its_syn_are_read() {
    assert_eq!(names_of(&[tcp(99, DATA, &hello())]).len(), 1);
    assert_eq!(names_of(&[tcp(99, SYN, &hello())]).len(), 1);
}
