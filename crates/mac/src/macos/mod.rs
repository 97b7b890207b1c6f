//! The frameworks. Nothing is decided here.
#![allow(unsafe_code, reason = "Objective-C messages and Core Foundation have no safe form")]

pub mod extension;
pub mod preferences;
pub mod status_item;

/// Does work on a thread of its own while the main one, on which this must be called, serves the main queue;
/// then the process ends with the status that the work gives.
pub fn serve_main_queue(work: impl FnOnce() -> u8 + Send + 'static) -> ! {
    std::thread::spawn(move || std::process::exit(work().into()));
    dispatch2::dispatch_main()
}
