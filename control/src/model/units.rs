//! Scalars with their unit or their bounds in the type: times, sizes, numbers, names.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A type that is written as text: how it is parsed and what is expected when that fails.
pub(crate) trait Text: Sized + fmt::Display + FromStr<Err = String> {
    /// What a value must be, for errors: "an address such as …".
    const EXPECTED: &'static str;
}

/// Gives a [`Text`] type its serde and JSON-Schema sides.
macro_rules! text_type {
    ($type:ty, $name:literal, $pattern:literal) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any($crate::model::units::TextVisitor(std::marker::PhantomData))
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    "pattern": $pattern,
                    "description": <$type as $crate::model::units::Text>::EXPECTED,
                })
            }
        }
    };
}
pub(crate) use text_type;

/// Reads a [`Text`] type.
pub(crate) struct TextVisitor<T>(pub(crate) std::marker::PhantomData<T>);

impl<T: Text> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|why: String| {
            let why = if why.is_empty() { String::new() } else { format!(": {why}") };
            E::custom(format_args!("expected {}; found \"{text}\"{why}", T::EXPECTED))
        })
    }
}

/// A span of time, to the millisecond: `300ms`, `5s`, `2m`, `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span(u32);

impl Span {
    /// Of this many milliseconds.
    pub const fn from_ms(ms: u32) -> Self {
        Self(ms)
    }

    /// In milliseconds.
    pub const fn as_ms(self) -> u32 {
        self.0
    }

    /// As the standard library's.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0 as u64)
    }
}

const TIME_UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

impl Text for Span {
    const EXPECTED: &'static str = "a time with its unit (ms, s, m or h), such as 5s or 300ms";
}

impl FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let ms = scaled(text, TIME_UNITS)?;
        u32::try_from(ms).map(Span).map_err(|_| "longer than 49 days".into())
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scaled(f, u64::from(self.0), &TIME_UNITS[..3])
    }
}

text_type!(Span, "Span", "^[0-9]+ ?(ms|s|m|h)$");

/// A number of bytes: `64KiB`, `1MiB`, `512B`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Size(pub u64);

const SIZE_UNITS: &[(&str, u64)] = &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

impl Text for Size {
    const EXPECTED: &'static str = "a size with its unit (B, KiB, MiB or GiB), such as 64KiB";
}

impl FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        scaled(text, SIZE_UNITS).map(Size)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scaled(f, self.0, SIZE_UNITS)
    }
}

text_type!(Size, "Size", "^[0-9]+ ?(B|KiB|MiB|GiB)$");

fn scaled(text: &str, units: &[(&str, u64)]) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start()).ok_or_else(String::new)?;
    let number: u64 = number.parse().map_err(|_| String::new())?;
    number.checked_mul(*factor).ok_or_else(|| "too large".into())
}

/// Writes with the largest unit that divides evenly.
fn write_scaled(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let (name, factor) = units
        .iter()
        .rev()
        .find(|(_, factor)| value > 0 && value.is_multiple_of(*factor))
        .unwrap_or(&units[0]);
    write!(f, "{}{name}", value / factor)
}

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Number<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Number<MIN, MAX> {
    /// `value`, moved into the bounds.
    pub const fn new(value: u64) -> Self {
        Self(if value < MIN {
            MIN
        } else if value > MAX {
            MAX
        } else {
            value
        })
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number as 32 bits; the largest when it has more.
    pub fn as_u32(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }

    /// The number as 16 bits; the largest when it has more.
    pub fn as_u16(self) -> u16 {
        u16::try_from(self.0).unwrap_or(u16::MAX)
    }

    /// The number as an index or count.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl<const MIN: u64, const MAX: u64> Serialize for Number<MIN, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Number<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor::<MIN, MAX>)
    }
}

impl<const MIN: u64, const MAX: u64> schemars::JsonSchema for Number<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Number{MIN}To{MAX}").into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

struct NumberVisitor<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Visitor<'_> for NumberVisitor<MIN, MAX> {
    type Value = Number<MIN, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if MIN == MAX {
            write!(f, "the number {MIN}")
        } else {
            write!(f, "a whole number from {MIN} to {MAX}")
        }
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
        if (MIN..=MAX).contains(&value) {
            return Ok(Number(value));
        }
        Err(E::invalid_value(de::Unexpected::Unsigned(value), &self))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
        match u64::try_from(value) {
            Ok(value) => self.visit_u64(value),
            Err(_) => Err(E::invalid_value(de::Unexpected::Signed(value), &self)),
        }
    }
}

/// How many at once, or a second; 0 for as many as there are.
pub type Limit = Number<0, 4_294_967_295>;

/// A probability, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Probability(pub f64);

impl Hash for Probability {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        // The two zeros are equal.
        (self.0 + 0.0).to_bits().hash(hasher);
    }
}

impl Serialize for Probability {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0)
    }
}

impl<'de> Deserialize<'de> for Probability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ProbabilityVisitor)
    }
}

impl schemars::JsonSchema for Probability {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Probability".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "number", "minimum": 0, "maximum": 1 })
    }
}

struct ProbabilityVisitor;

impl Visitor<'_> for ProbabilityVisitor {
    type Value = Probability;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a probability from 0 to 1, such as 0.05")
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Probability, E> {
        if (0.0..=1.0).contains(&value) {
            return Ok(Probability(value));
        }
        Err(E::invalid_value(de::Unexpected::Float(value), &self))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Probability, E> {
        self.visit_f64(value as f64)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Probability, E> {
        self.visit_f64(value as f64)
    }
}

/// An object's name: a letter or digit, then up to 254 letters, digits, `_`, `-`, `.`, `:` or `/`. Cloning shares it:
/// a pool's name is part of what each of its members is known by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Text for Name {
    const EXPECTED: &'static str =
        "a name: a letter or digit, then letters, digits, _ - . : or /, 255 characters at most";
}

impl FromStr for Name {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        let rest = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:/".contains(&byte));
        if first && rest && text.len() <= 255 { Ok(Name(text.into())) } else { Err(String::new()) }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_type!(Name, "Name", "^[A-Za-z0-9][A-Za-z0-9_.:/-]{0,254}$");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_come_back_as_written() {
        for text in ["0ms", "5s", "300ms", "2m", "90s", "49d"] {
            let parsed = text.parse::<Span>().map(|span| span.to_string());
            assert_eq!(parsed.ok().as_deref(), (text != "49d").then_some(text));
        }
        assert_eq!("1h".parse::<Span>().unwrap().as_ms(), 3_600_000);
        assert_eq!("64KiB".parse::<Size>().unwrap(), Size(65_536));
        assert_eq!(Size(65_536).to_string(), "64KiB");
        assert!(
            "64kb".parse::<Size>().is_err() && "5".parse::<Span>().is_err() && "s".parse::<Span>().is_err()
        );
        assert!("99999999999999999999s".parse::<Span>().is_err() && "5000000000ms".parse::<Span>().is_err());
    }

    #[test]
    fn names_hold_what_urls_and_labels_can_carry() {
        assert!("web".parse::<Name>().is_ok() && "ns/svc-1.a:b".parse::<Name>().is_ok());
        for bad in ["", "-web", "a b", "ä", "a\"b"] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }
}
