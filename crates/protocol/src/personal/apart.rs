//! Tests that do not compile: each fails once the one type converts to the other, by `From`, `Into`, `TryFrom`
//! or `TryInto`. That the way of asking can be answered by yes:
//!
//! ```
//! fn convert<A: TryInto<B>, B>() {}
//! convert::<toktra_protocol::personal::local::PersonalUsage, toktra_protocol::personal::local::PersonalUsage>();
//! convert::<toktra_protocol::event::Usage, toktra_protocol::event::Usage>();
//! ```

macro_rules! apart {
    ($($one:literal $other:literal)*) => {
        $(
            #[doc = concat!("```compile_fail,E0277\nfn convert<A: TryInto<B>, B>() {}\n")]
            #[doc = concat!("convert::<toktra_protocol::", $one, ", toktra_protocol::", $other, ">();\n```\n")]
            #[doc = concat!("```compile_fail,E0277\nfn convert<A: TryInto<B>, B>() {}\n")]
            #[doc = concat!("convert::<toktra_protocol::", $other, ", toktra_protocol::", $one, ">();\n```\n")]
            const _: () = ();
        )*
    };
}

apart! {
    "personal::local::PersonalUsage" "event::Usage"
    "personal::local::PersonalUsage" "event::EventBody"
    "personal::local::PersonalUsage" "local::Record"
    "personal::local::PersonalUsage" "event::Event"
    "personal::local::PersonalRecord" "event::Usage"
    "personal::local::PersonalRecord" "event::EventBody"
    "personal::local::PersonalRecord" "local::Record"
    "personal::local::PersonalRecord" "event::Event"
    "personal::local::PersonalEstimate" "event::Estimate"
    "personal::Sealed" "event::Event"
    "personal::Sealed" "event::EventBody"
    "personal::PersonalBatch" "codec::Batch"
}
