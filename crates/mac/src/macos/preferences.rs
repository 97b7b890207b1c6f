//! Preferences out of Core Foundation, read anew at each call.

use objc2_core_foundation::{
    CFArray, CFNumber, CFPreferencesAppSynchronize, CFPreferencesAppValueIsForced, CFPreferencesCopyAppValue,
    CFString, CFType,
};

use crate::preferences::{DOMAIN, Preference, Preferences, Value};

/// Lists of lists of lists are no preference of ours.
const DEPTH: u8 = 2;

/// What is set of these keys, for this process's user and this machine.
pub fn read(keys: &[&str]) -> Preferences {
    let domain = CFString::from_str(DOMAIN);
    // Else what another process has changed is not seen.
    CFPreferencesAppSynchronize(&domain);
    Preferences::new(keys.iter().filter_map(|key| {
        let name = CFString::from_str(key);
        let value = CFPreferencesCopyAppValue(&name, &domain)?;
        let forced = CFPreferencesAppValueIsForced(&name, &domain);
        Some(((*key).to_owned(), Preference { value: plain(&value, DEPTH), forced }))
    }))
}

fn plain(value: &CFType, depth: u8) -> Value {
    if let Some(text) = value.downcast_ref::<CFString>() {
        return Value::Text(text.to_string());
    }
    if let Some(number) = value.downcast_ref::<CFNumber>() {
        return number.as_i64().map_or(Value::Other, Value::Whole);
    }
    match value.downcast_ref::<CFArray>() {
        // SAFETY: a property list's arrays hold Core Foundation's own objects.
        Some(list) if depth > 0 => {
            let list = unsafe { list.cast_unchecked::<CFType>() };
            Value::List(list.iter().map(|item| plain(&item, depth - 1)).collect())
        }
        _ => Value::Other,
    }
}
