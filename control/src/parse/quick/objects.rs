//! The objects of large sections: where each stands, and which stands as it did in an earlier text.
//!
//! ```text
//!   pools:
//!     web:                      an object's text: from its key
//!       members:
//!         - {address: …}
//!     # …                       … to where the next line of its column begins; to its last brace in JSON
//!     mail:
//! ```

use std::borrow::Cow;
use std::ops::Range;

use crate::parse::source::SECTIONS;

/// Where an object stands.
#[derive(Debug, Clone)]
pub(in crate::parse) struct Place {
    start: usize,
    end: usize,
    /// The line that its key stands in.
    pub(in crate::parse) line: u32,
    /// Line breaks in its text.
    pub(super) breaks: u32,
    /// The column of its key, which all of its text goes by; 0 in JSON, where none does.
    pub(in crate::parse) column: usize,
}

impl Place {
    /// Its text, in the document.
    pub(in crate::parse) fn range(&self) -> Range<usize> {
        self.start..self.end
    }
}

/// An object of a section.
#[derive(Debug)]
pub(in crate::parse) enum Found<'t> {
    /// It stands as it did at the `former` place of the earlier text.
    Same { former: usize, place: Place },
    /// It was read.
    New { key: Cow<'t, str>, place: Place },
}

impl Found<'_> {
    /// Its former place and its place, when it stands as it did.
    pub(in crate::parse) fn as_same(&self) -> Option<(usize, &Place)> {
        match self {
            Found::Same { former, place } => Some((*former, place)),
            Found::New { .. } => None,
        }
    }
}

/// A section of the earlier text.
#[derive(Default)]
pub(in crate::parse) struct Section<'t> {
    /// In the order of the text.
    places: &'t [Place],
    place_of: Option<PlaceOf<'t>>,
}

/// From an object's name to its place.
type PlaceOf<'t> = Box<dyn Fn(&str) -> Option<usize> + 't>;

impl<'t> Section<'t> {
    pub(in crate::parse) fn new(places: &'t [Place], place_of: PlaceOf<'t>) -> Self {
        Self { places, place_of: Some(place_of) }
    }
}

/// What is known of the earlier text, and what is found in this one.
#[derive(Default)]
pub(in crate::parse) struct Objects<'t> {
    /// The earlier text.
    text: &'t str,
    former: [Section<'t>; 2],
    found: [Vec<Found<'t>>; 2],
    /// The section that is being read.
    section: Option<usize>,
    /// The place there that should come next: the one behind the last that came.
    next: usize,
}

impl<'t> Objects<'t> {
    pub(in crate::parse) fn new(text: &'t str, former: [Section<'t>; 2]) -> Self {
        Self { text, former, ..Self::default() }
    }

    pub(super) fn found(self) -> [Vec<Found<'t>>; 2] {
        self.found
    }

    /// The document's section `name` begins.
    pub(super) fn enter(&mut self, name: &str) {
        self.section = SECTIONS.iter().position(|known| *known == name);
        self.next = 0;
    }

    /// True in a section whose objects are kept.
    pub(super) fn is_in_section(&self) -> bool {
        self.section.is_some()
    }

    /// The former place that should come next, when `rest` begins with its text.
    pub(super) fn expected(&self, rest: &str, column: usize) -> Option<usize> {
        self.matching(self.next, rest, column)
    }

    /// The former place of the object `name`, when `rest` begins with its text.
    pub(super) fn named(&self, name: &str, rest: &str, column: usize) -> Option<usize> {
        let place = self.former[self.section?].place_of.as_ref()?(name)?;
        self.matching(place, rest, column)
    }

    fn matching(&self, former: usize, rest: &str, column: usize) -> Option<usize> {
        let place = self.former[self.section?].places.get(former)?;
        let text = self.text.get(place.range())?;
        (place.column == column && rest.as_bytes().starts_with(text.as_bytes())).then_some(former)
    }

    /// Length and line breaks of the text at a former place.
    pub(super) fn size(&self, former: usize) -> Option<(usize, u32)> {
        let place = self.former[self.section?].places.get(former)?;
        Some((place.range().len(), place.breaks))
    }

    /// The text at a former place stands at `start`, too.
    pub(super) fn push_same(&mut self, former: usize, start: usize, line: u32) {
        let Some(section) = self.section else { return };
        let Some(was) = self.former[section].places.get(former) else { return };
        let place = Place { start, end: start + was.range().len(), line, ..was.clone() };
        self.found[section].push(Found::Same { former, place });
        self.next = former + 1;
    }

    /// An object was read that begins at `start` in `line`, and ends before `end` in `end_line`.
    pub(super) fn push_new(
        &mut self,
        key: Cow<'t, str>,
        start: (usize, u32),
        end: (usize, u32),
        column: usize,
    ) {
        let Some(section) = self.section else { return };
        if let Some(former) = self.former[section].place_of.as_ref().and_then(|place_of| place_of(&key)) {
            self.next = former + 1;
        }
        let place = Place { start: start.0, end: end.0, line: start.1, breaks: end.1 - start.1, column };
        self.found[section].push(Found::New { key, place });
    }
}
