//! The hello is found through every link layer, tag, label and tunnel, one at a time.

mod support;

use support::{ethernet, hello, ipv4, ipv4_fragment, ipv6, names, pcap, tcp, udp};

fn assert_found(what: &str, link: u32, frame: Vec<u8>) {
    assert_eq!(names(&pcap(link, &[frame])), ["test.example"], "{what}");
}

#[test]
fn a_hello_is_found_through_every_link_layer() {
    let (ip, ip6) = (ipv4(6, &tcp(1, 0x18, &hello())), ipv6(6, &tcp(1, 0x18, &hello())));
    let behind = |header: &[u8]| [header, &ip].concat();
    for link in [12, 14, 101, 228] {
        assert_found("raw", link, ip.clone());
    }
    assert_found("raw, IPv6", 229, ip6.clone());
    assert_found("Ethernet", 1, ethernet(0x0800, &ip));
    assert_found("Ethernet, IPv6", 1, ethernet(0x86dd, &ip6));
    assert_found("Ethernet with padding", 1, ethernet(0x0800, &[ip.clone(), vec![0; 30]].concat()));
    assert_found("NULL", 0, behind(&[2, 0, 0, 0]));
    assert_found("LOOP", 108, behind(&[0, 0, 0, 2]));
    assert_found("PPP", 9, behind(&[0, 0x21]));
    assert_found("PPP with address and control", 50, behind(&[0xff, 3, 0, 0x21]));
    assert_found("PPP with a compressed protocol", 9, behind(&[0x21]));
    assert_found("C_HDLC", 104, behind(&[0x0f, 0, 8, 0]));
    assert_found("SLL", 113, behind(&[&[0; 14][..], &[8, 0]].concat()));
    assert_found("SLL2", 276, behind(&[&[8, 0][..], &[0; 18]].concat()));
}

#[test]
fn a_hello_is_found_through_every_tag_and_tunnel() {
    let ip = ipv4(6, &tcp(1, 0x18, &hello()));
    let behind = |header: &[u8]| [header, &ip].concat();
    let frame = ethernet(0x0800, &ip);
    assert_found("VLAN", 1, ethernet(0x8100, &behind(&[0, 7, 8, 0])));
    assert_found("QinQ", 1, ethernet(0x88a8, &behind(&[0, 7, 0x81, 0, 0, 8, 8, 0])));
    assert_found("MPLS", 1, ethernet(0x8847, &behind(&[0, 1, 0, 64, 0, 1, 1, 64])));
    let pseudowire = [&[0, 1, 1, 64, 0, 0, 0, 0][..], &frame].concat();
    assert_found("Ethernet over MPLS", 1, ethernet(0x8847, &pseudowire));
    assert_found("PPPoE", 1, ethernet(0x8864, &behind(&[0x11, 0, 0, 1, 0, 0, 0, 0x21])));
    assert_found("Cisco metadata", 1, ethernet(0x8909, &behind(&[1, 1, 0, 1, 0, 2, 8, 0])));
    assert_found("SNAP", 1, ethernet(200, &behind(&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0])));
    assert_found("IP in IP", 101, ipv4(4, &ip));
    assert_found("IPv4 in IPv6", 101, ipv6(4, &ip));
    assert_found("GRE", 101, ipv4(47, &behind(&[0x20, 0, 8, 0, 0, 0, 0, 1])));
    assert_found("GRE with Ethernet", 101, ipv4(47, &[&[0, 0, 0x65, 0x58][..], &frame].concat()));
    assert_found("VXLAN", 101, ipv4(17, &udp(4789, &[&[8, 0, 0, 0, 0, 0, 1, 0][..], &frame].concat())));
    let geneve = [&[1, 0, 0x65, 0x58, 0, 0, 1, 0, 9, 9, 9, 9][..], &frame].concat();
    assert_found("GENEVE with an option", 101, ipv4(17, &udp(6081, &geneve)));
    assert_found("GTP-U", 101, ipv4(17, &udp(2152, &behind(&[0x30, 0xff, 0, 0, 0, 0, 0, 1]))));
    let extended = behind(&[0x34, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0x85, 1, 0, 0, 0]);
    assert_found("GTP-U with an extension", 101, ipv4(17, &udp(2152, &extended)));
}

#[test]
fn a_hello_is_found_in_fragments_in_any_order() {
    let segment = tcp(1, 0x18, &hello());
    let (first, rest) = segment.split_at(40);
    let frames = [ipv4_fragment(6, 5, rest), ipv4_fragment(6, 0x2000, first)];
    assert_eq!(names(&pcap(101, &frames)), ["test.example"]);
}

#[test]
fn layers_without_end_are_given_up() {
    let mut packet = ipv4(6, &tcp(1, 0x18, &hello()));
    for _ in 0..100 {
        packet = ipv4(4, &packet);
    }
    assert!(names(&pcap(101, &[packet])).is_empty());
}
