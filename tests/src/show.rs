//! Reading what `show` says.

use serde_json::Value;

/// The number at the JSON pointer `at`, such as `/connections/total`.
///
/// # Panics
/// When there is none.
pub fn number(value: &Value, at: &str) -> u64 {
    let found = value.pointer(at).and_then(Value::as_u64);
    found.unwrap_or_else(|| panic!("no number at {at} in {value}"))
}

/// The entry of a list whose `key` is `value`.
///
/// # Panics
/// When there is none.
pub fn entry<'a>(list: &'a Value, key: &str, value: &str) -> &'a Value {
    let mut entries = list.as_array().into_iter().flatten();
    let found = entries.find(|entry| entry[key] == value);
    found.unwrap_or_else(|| panic!("no entry whose {key} is {value} in {list}"))
}
