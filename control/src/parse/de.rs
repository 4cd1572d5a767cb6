//! serde over a [`Node`]: errors carry the path to their place and say what was expected.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};

use super::node::{Entry, Node, Value};

/// Why a node does not fit a type.
#[derive(Debug)]
pub(super) struct Error {
    /// From the innermost place outwards.
    pub(super) path: Vec<String>,
    pub(super) what: What,
}

/// What is wrong.
#[derive(Debug)]
pub(super) enum What {
    /// This place holds the wrong thing.
    Wrong(String),
    /// This field is not known; perhaps another one was meant.
    Unknown { message: String, meant: Option<&'static str> },
    /// This map lacks a field; `one|other` when either would do.
    Missing(&'static str),
    /// This map has nothing left but what was refused and reported.
    Hollow,
}

impl Error {
    fn wrong(message: String) -> Self {
        Self { path: Vec::new(), what: What::Wrong(message) }
    }

    fn below(mut self, segment: &str) -> Self {
        self.path.push(segment.into());
        self
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Wrong(message) | What::Unknown { message, .. } => f.write_str(message),
            What::Missing(field) => write!(f, "expected \"{field}\""),
            What::Hollow => f.write_str("expected a value"),
        }
    }
}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::wrong(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::wrong(format!("expected {expected}; found {}", words(found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(found: &str, known: &'static [&'static str]) -> Self {
        let hint = did_you_mean(nearest(found, known));
        Self::wrong(format!("expected one of {}; found \"{found}\"{hint}", known.join(", ")))
    }

    fn unknown_field(found: &str, known: &'static [&'static str]) -> Self {
        let meant = nearest(found, known);
        let listed = if known.is_empty() { "no fields".into() } else { known.join(", ") };
        let message = format!("unknown field \"{found}\"{}; expected {listed}", did_you_mean(meant));
        Self { path: Vec::new(), what: What::Unknown { message, meant } }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { path: Vec::new(), what: What::Missing(field) }
    }
}

fn words(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Unsigned(number) => format!("the number {number}"),
        Unexpected::Signed(number) => format!("the number {number}"),
        Unexpected::Float(number) => format!("the number {number}"),
        Unexpected::Bool(value) => format!("{value}"),
        Unexpected::Str(text) => format!("\"{text}\""),
        Unexpected::Seq => "a list".into(),
        Unexpected::Map => "a map".into(),
        Unexpected::Unit => "nothing".into(),
        other => other.to_string(),
    }
}

/// The known word that is nearest, when one is near.
fn nearest(found: &str, known: &'static [&'static str]) -> Option<&'static str> {
    let found = found.replace('-', "_").to_ascii_lowercase();
    let distance = |word: &str| strsim::osa_distance(&found, &word.replace('-', "_"));
    let near = known.iter().filter(|word| distance(word) <= 1 + word.len() / 4);
    near.min_by_key(|word| distance(word)).copied()
}

fn did_you_mean(word: Option<&str>) -> String {
    word.map_or_else(String::new, |word| format!(" (did you mean \"{word}\"?)"))
}

impl Node<'_> {
    fn unexpected(&self) -> Unexpected<'_> {
        match &self.value {
            Value::Null | Value::Removed => Unexpected::Unit,
            Value::Bool(value) => Unexpected::Bool(*value),
            Value::Int(number) => Unexpected::Signed(*number),
            Value::Large(number) => match u64::try_from(**number) {
                Ok(number) => Unexpected::Unsigned(number),
                Err(_) => Unexpected::Other("a number with too many digits"),
            },
            Value::Float(number) => Unexpected::Float(*number),
            Value::Text(text) => Unexpected::Str(text),
            Value::List(_) => Unexpected::Seq,
            Value::Map(_) => Unexpected::Map,
        }
    }

    fn is(&self, what: &'static str) -> Error {
        Error::wrong(format!("expected {what}; found {}", words(self.unexpected())))
    }

    fn entries(&self, what: impl FnOnce() -> String) -> Result<&[Entry<'_>], Error> {
        match &self.value {
            Value::Map(entries) => Ok(entries),
            Value::Null => Ok(&[]),
            _ => Err(Error::wrong(format!("expected {}; found {}", what(), words(self.unexpected())))),
        }
    }
}

/// Reads a type out of a node.
#[derive(Clone, Copy)]
pub(super) struct Reader<'de>(pub(super) &'de Node<'de>);

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.0.value {
            Value::Null | Value::Removed => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(number) => match u64::try_from(*number) {
                Ok(number) => visitor.visit_u64(number),
                Err(_) => visitor.visit_i64(*number),
            },
            Value::Large(number) => match u64::try_from(**number) {
                Ok(number) => visitor.visit_u64(number),
                Err(_) => Err(de::Error::invalid_type(self.0.unexpected(), &visitor)),
            },
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::List(items) => visitor.visit_seq(Items { items: items.iter().enumerate() }),
            Value::Map(entries) => {
                visitor.visit_map(Entries { entries: entries.iter(), current: None, optional: Optional::All })
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if matches!(self.0.value, Value::Null) { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.0.value {
            Value::Bool(value) => visitor.visit_bool(*value),
            _ => Err(self.0.is("true or false")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.0.value {
            Value::Text(text) => visitor.visit_borrowed_str(text),
            _ => Err(self.0.is("text (in quotes, if it looks like something else)")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_string(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.0.value {
            Value::Int(0..) => self.deserialize_any(visitor),
            Value::Large(number) if u64::try_from(**number).is_ok() => self.deserialize_any(visitor),
            _ => Err(self.0.is("a whole number, 0 or more")),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.0.value {
            Value::List(items) => visitor.visit_seq(Items { items: items.iter().enumerate() }),
            Value::Null => visitor.visit_seq(Items { items: [].iter().enumerate() }),
            _ => Err(self.0.is("a list")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let entries = self.0.entries(|| "a map of names to objects".into())?;
        visitor.visit_map(Entries { entries: entries.iter(), current: None, optional: Optional::Only(&[]) })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let entries = self.0.entries(|| format!("a map with {}", fields.join(", ")))?;
        visitor.visit_map(Entries {
            entries: entries.iter(),
            current: None,
            optional: Optional::Only(fields),
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.0.value {
            Value::Text(text) => visitor.visit_enum(Variant(text)),
            Value::Map(entries) => visitor.visit_enum(only_entry(entries, variants)?),
            _ => Err(Error::wrong(format!(
                "expected one of {}; found {}",
                variants.join(", "),
                words(self.0.unexpected())
            ))),
        }
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct
        identifier ignored_any
    }
}

/// A list's items. Removed ones are passed over; those behind keep their index.
struct Items<'de> {
    items: std::iter::Enumerate<std::slice::Iter<'de, Node<'de>>>,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let next = self.items.find(|(_, node)| node.value != Value::Removed);
        let Some((index, node)) = next else { return Ok(None) };
        seed.deserialize(Reader(node)).map(Some).map_err(|error| error.below(&index.to_string()))
    }
}

/// A map's entries. Removed ones are passed over, and `optional` ones that were left empty (`pools:`).
struct Entries<'de> {
    entries: std::slice::Iter<'de, Entry<'de>>,
    current: Option<&'de Entry<'de>>,
    optional: Optional,
}

/// Which of a map's entries may be left empty.
#[derive(Clone, Copy)]
enum Optional {
    All,
    Only(&'static [&'static str]),
}

impl Optional {
    fn is_there(self, entry: &Entry<'_>) -> bool {
        match (&entry.node.value, self) {
            (Value::Removed, _) | (Value::Null, Optional::All) => false,
            (Value::Null, Optional::Only(known)) => !known.contains(&&*entry.key),
            _ => true,
        }
    }
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.current = self.entries.find(|entry| self.optional.is_there(entry));
        let Some(entry) = self.current else { return Ok(None) };
        let key: StrDeserializer<'_, Error> = entry.key.as_ref().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|error| error.below(&entry.key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some(entry) = self.current else { return Err(de::Error::custom("a value without a key")) };
        seed.deserialize(Reader(&entry.node)).map_err(|error| error.below(&entry.key))
    }
}

/// The entry of a map that stands for an enum's variant.
fn only_entry<'de>(entries: &'de [Entry<'de>], variants: &[&str]) -> Result<Keyed<'de>, Error> {
    let mut left = entries.iter().filter(|entry| entry.node.value != Value::Removed);
    match (left.next(), left.next()) {
        (Some(entry), None) => Ok(Keyed(entry)),
        (None, _) if !entries.is_empty() => Err(Error { path: Vec::new(), what: What::Hollow }),
        (first, _) => {
            let found = if first.is_some() { "several" } else { "none" };
            Err(Error::wrong(format!("expected one of {}; found {found}", variants.join(", "))))
        }
    }
}

/// An enum's variant, written as a map of one entry: its name and its value.
struct Keyed<'de>(&'de Entry<'de>);

impl<'de> EnumAccess<'de> for Keyed<'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let name: StrDeserializer<'_, Error> = self.0.key.as_ref().into_deserializer();
        let value = seed.deserialize(name).map_err(|error| error.below(&self.0.key))?;
        Ok((value, self))
    }
}

impl<'de> VariantAccess<'de> for Keyed<'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Err(Error::wrong(format!("\"{}\" takes no value", self.0.key)).below(&self.0.key))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(Reader(&self.0.node)).map_err(|error| error.below(&self.0.key))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        Reader(&self.0.node).deserialize_seq(visitor).map_err(|error| error.below(&self.0.key))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let value = Reader(&self.0.node).deserialize_struct("", fields, visitor);
        value.map_err(|error| error.below(&self.0.key))
    }
}

/// An enum's variant, written as text.
struct Variant<'de>(&'de str);

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let name: StrDeserializer<'_, Error> = self.0.into_deserializer();
        seed.deserialize(name).map(|value| (value, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Error> {
        Err(Error::wrong(format!("\"{}\" needs a value", self.0)))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Error> {
        Err(Error::wrong(format!("\"{}\" takes no value", self.0)))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Error> {
        Err(Error::wrong(format!("\"{}\" takes no value", self.0)))
    }
}
