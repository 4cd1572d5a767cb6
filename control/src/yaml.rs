//! JSON values as YAML text that reads back as the same values. Only for output.

use serde_json::Value;

/// `value` as a YAML document.
pub fn to_yaml(value: &Value) -> String {
    let mut text = String::new();
    block(&mut text, value, 0);
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text.trim_start().into()
}

/// Writes `value` behind what is there: on the same line when it is short, else below, indented.
fn block(text: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (name, value) in map {
                line(text, indent, &format!("{}:", scalar(name)));
                block(text, value, indent + 2);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                line(text, indent, "-");
                entry(text, item, indent + 2);
            }
        }
        short => {
            text.push(' ');
            text.push_str(&flow(short));
        }
    }
}

/// A list's item: a map begins on the line of its dash.
fn entry(text: &mut String, value: &Value, indent: usize) {
    let start = text.len();
    block(text, value, indent);
    if text[start..].starts_with('\n') && value.is_object() {
        text.replace_range(start..start + 1 + indent, " ");
    }
}

fn line(text: &mut String, indent: usize, content: &str) {
    text.push('\n');
    text.extend(std::iter::repeat_n(' ', indent));
    text.push_str(content);
}

fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        Value::Object(_) => "{}".into(),
        Value::Array(_) => "[]".into(),
        other => other.to_string(),
    }
}

/// Plain where that cannot be read as anything else; in quotes as in JSON, which YAML shares.
fn scalar(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte);
    let first = text.bytes().next().unwrap_or(b' ');
    let address = first.is_ascii_digit() && text.matches('.').count() == 3;
    let word = first.is_ascii_alphabetic() && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if (address || word) && text.bytes().all(plain) {
        return text.into();
    }
    Value::String(text.into()).to_string()
}

/// What some readers of YAML take for something else than text.
const WORDS: &[&str] = &["true", "false", "null", "yes", "no", "on", "off", "y", "n"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{Format, Node, read};
    use serde_json::json;

    /// A tree without its lines.
    fn unlined(mut node: Node<'_>) -> Node<'_> {
        use crate::parse::Value as V;
        node.line = 0;
        node.value = match node.value {
            V::List(items) => V::List(items.into_iter().map(unlined).collect()),
            V::Map(entries) => V::Map(
                entries
                    .into_iter()
                    .map(|entry| crate::parse::Entry { line: 0, node: unlined(entry.node), ..entry })
                    .collect(),
            ),
            other => other,
        };
        node
    }

    #[test]
    fn reads_back_as_it_was() {
        for value in [
            json!({"a": {"b": [1, {"c": "d", "e": [[], {}, [1, [2]]]}, "x: y", "- z", "", "1.5", "1e5", "no", "ä\n\"é"]}, "*": null, "f": true}),
            json!([]),
            json!({"name": "192.0.2.1", "at": "192.0.2.100:80", "v6": "2001:db8::1", "n": "0.0.0.0/0", "r": ["192.0.2.1"]}),
            json!("text"),
            json!([[{"a": 1, "b": {"c": {}}}], 0.5, -3]),
        ] {
            let text = to_yaml(&value);
            let back = read(&text, Format::Yaml).unwrap_or_else(|why| panic!("{why:?}\n{text}"));
            assert_eq!(unlined(back), Node::from_json(&value), "{text}");
        }
    }
}
