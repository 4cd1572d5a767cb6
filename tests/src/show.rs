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

/// The sum of all numbers under the key `name`, or beside a `reason` of that name, wherever they stand.
pub fn sum(value: &Value, name: &str) -> u64 {
    match value {
        Value::Object(map) if map.get("reason").is_some_and(|reason| reason == name) => {
            map.values().filter_map(Value::as_u64).sum()
        }
        Value::Object(map) => map
            .iter()
            .map(|(key, inner)| if key == name { inner.as_u64().unwrap_or(0) } else { sum(inner, name) })
            .sum(),
        Value::Array(list) => list.iter().map(|inner| sum(inner, name)).sum(),
        _ => 0,
    }
}
