//! Where a system extension's log goes: the unified log, since nobody reads its standard error. To be seen
//! with `log stream --predicate 'process == "com.toktra.agent.extension"'`.
#![allow(unsafe_code, reason = "NSLog has no safe form")]

use std::io;

use objc2_foundation::NSString;

#[link(name = "Foundation", kind = "framework")]
unsafe extern "C" {
    /// NSObjCRuntime.h.
    fn NSLog(format: &NSString, ...);
}

/// Writes each line that it is given whole as one message. Lines are public: what may not be known is not
/// logged in the first place.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnifiedLog;

impl io::Write for UnifiedLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let (format, text) = (NSString::from_str("%{public}@"), NSString::from_str(text.trim_end()));
        // SAFETY: the format takes one object, and gets one.
        unsafe { NSLog(&format, &raw const *text) };
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
