//! Streams: every split, and every failure of other readers that was measured.

use toktra_hello::{Answer, Prelude, Stream, read_stream};

use crate::support::message::Hello;
use crate::support::record::{record, records_cut_at};
use crate::support::{name, named};

#[test]
fn a_whole_hello_gives_its_name_without_a_copy() {
    let stream = record(&Hello::new("api.openai.com").message());
    let Answer::Name { name: std::borrow::Cow::Borrowed(found), .. } = read_stream(&stream) else {
        panic!("not borrowed")
    };
    assert_eq!(found, "api.openai.com");
    assert!(stream.as_ptr_range().contains(&found.as_ptr()));
    assert_eq!(Stream::new().push(0, &stream), name("api.openai.com"));
}

#[test]
fn a_record_boundary_at_every_byte_changes_nothing() {
    let message = Hello::new("api.anthropic.com").message();
    for cut in 1..message.len() {
        assert_eq!(read_stream(&records_cut_at(&message, &[cut])), name("api.anthropic.com"), "cut at {cut}");
    }
    let every_byte: Vec<usize> = (1..message.len()).collect();
    assert_eq!(read_stream(&records_cut_at(&message, &every_byte)), name("api.anthropic.com"));
}

#[test]
fn a_browser_hello_larger_than_a_segment_is_read_with_its_ech_flag() {
    let hello = Hello::new("chatgpt.com").with_grease().with_post_quantum_share().with_ech().padded_to(2000);
    assert_eq!(read_stream(&record(&hello.message())), named("chatgpt.com", true, Prelude::None));
}
