//! [`Source`]: a document of which only that is read which is written otherwise than in an earlier one.
//!
//! ```text
//!   text ─ quick, beside what is Kept ─▶ tree of what is new ─ serde ─▶ Model ◀─ objects that are the same
//!                    ▲                                                    │
//!                    └── Kept: a text, the places of its objects in it, and the objects ◀─ once it is accepted
//! ```
//!
//! What a pool or virtual server is read as follows from its own text alone, with its key and its column. So the same
//! text is the same object, wherever it stands in its section. Whatever is wrong with a document is not said here: it
//! is read as a whole then.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::quick::{self, Found, Objects, Place};
use super::{Fault, Format, Node, Pointer};
use crate::model::{Model, Name, Pool, VirtualServer};

/// Sections whose objects are kept: there are many.
pub(super) const SECTIONS: [&str; 2] = ["pools", "virtual_servers"];

/// A document that was accepted: its text, and what its pools and virtual servers were read as.
#[derive(Debug, Default)]
pub struct Kept {
    text: Arc<String>,
    format: Option<Format>,
    pools: Section<Pool>,
    virtual_servers: Section<VirtualServer>,
}

/// The objects of a section.
#[derive(Debug)]
struct Section<T> {
    /// By name.
    objects: Vec<(Name, Arc<T>)>,
    /// In the order of the text; an object that is not plain has none.
    places: Vec<Place>,
    /// From each place to its object.
    of_place: Vec<usize>,
    /// From each object to its place.
    place_of: Vec<Option<usize>>,
}

/// A text that was read.
#[derive(Debug)]
pub struct Source<'t> {
    text: &'t Arc<String>,
    format: Format,
    kept: &'t Kept,
    /// What is new in it.
    tree: Node<'t>,
    /// Of each section what stands there, in the order of the text.
    found: [Vec<Found<'t>>; 2],
    /// By section and kept object: the line where it stands; 0 where it does not.
    lines: [Vec<u32>; 2],
    /// A kept object stands twice.
    has_twice: bool,
}

impl<'t> Source<'t> {
    /// Reads what is new in `text`.
    ///
    /// # Errors
    /// As [`super::read`].
    pub fn read(text: &'t Arc<String>, format: Format, kept: &'t Kept) -> Result<Self, Vec<Fault>> {
        let plain = super::without_mark(text);
        let former = if kept.format == Some(format) { kept.sections() } else { Default::default() };
        let objects = Objects::new(super::without_mark(&kept.text), former);
        let quick = match format {
            Format::Yaml => quick::from_yaml_beside(plain, objects),
            Format::Json => quick::from_json_beside(plain, objects),
        };
        let (tree, found) = match quick {
            Some(quick) => quick,
            None => (super::read_any(text, format)?, Default::default()),
        };
        let mut source =
            Self { text, format, kept, tree, found, lines: Default::default(), has_twice: false };
        source.find_lines();
        Ok(source)
    }

    fn find_lines(&mut self) {
        let of_place = [&self.kept.pools.of_place, &self.kept.virtual_servers.of_place];
        for ((found, of_place), lines) in self.found.iter().zip(of_place).zip(&mut self.lines) {
            lines.resize(of_place.iter().max().map_or(0, |last| last + 1), 0);
            for (former, place) in found.iter().filter_map(Found::as_same) {
                let line = &mut lines[of_place[former]];
                self.has_twice |= *line > 0;
                *line = place.line;
            }
        }
    }

    /// The document as a whole.
    ///
    /// # Errors
    /// As [`super::read`].
    pub fn whole(&self) -> Result<Cow<'_, Node<'t>>, Vec<Fault>> {
        let is_whole = self.lines.iter().flatten().all(|line| *line == 0);
        if is_whole {
            Ok(Cow::Borrowed(&self.tree))
        } else {
            super::read(self.text, self.format).map(Cow::Owned)
        }
    }

    /// What it says; `None` when something is wrong with it.
    pub(crate) fn model(&self) -> Option<Model> {
        let mut model = if self.has_twice { None } else { super::parse_right(&self.tree) }?;
        let [pools, virtual_servers] = &self.lines;
        self.kept.pools.add_to(&mut model.pools, pools)?;
        self.kept.virtual_servers.add_to(&mut model.virtual_servers, virtual_servers)?;
        Some(model)
    }

    /// The line of the place that `pointer` names, or of the nearest place above it that there is.
    pub(crate) fn line_of(&self, pointer: &Pointer) -> Option<u32> {
        self.line_in_same(pointer).or_else(|| self.tree.line_of(pointer))
    }

    /// The line of a place in an object that is the same: it is read after all, but alone.
    fn line_in_same(&self, pointer: &Pointer) -> Option<u32> {
        let mut segments = pointer.segments();
        let (section, name) = (segments.next()?, segments.next()?);
        let section = SECTIONS.iter().position(|known| *known == section)?;
        let place = match section {
            0 => self.kept.pools.find(&name, &self.lines[0]),
            _ => self.kept.virtual_servers.find(&name, &self.lines[1]),
        };
        let (place, line) = place?;
        let text = self.kept.alone(place);
        let inside = segments.fold(Pointer::root().child(&name), |path, segment| path.child(&segment));
        let alone = super::read(&text, self.format).ok()?.line_of(&inside)?;
        Some(line + alone - 1)
    }

    /// What is kept of it, once `model` is what it says.
    pub(crate) fn keep(&self, model: &Model) -> Kept {
        let [pools, virtual_servers] = &self.found;
        Kept {
            text: Arc::clone(self.text),
            format: Some(self.format),
            pools: self.kept.pools.next(pools, &model.pools),
            virtual_servers: self.kept.virtual_servers.next(virtual_servers, &model.virtual_servers),
        }
    }
}

impl Kept {
    /// True when no text came before.
    pub fn is_empty(&self) -> bool {
        self.format.is_none()
    }

    fn sections(&self) -> [quick::Section<'_>; 2] {
        [self.pools.as_quick(), self.virtual_servers.as_quick()]
    }

    /// The text of an object as a document of its own, in which it begins on the first line.
    fn alone(&self, place: &Place) -> String {
        let text = super::without_mark(&self.text).get(place.range()).unwrap_or_default();
        match self.format {
            Some(Format::Json) => format!("{{{text}}}"),
            Some(Format::Yaml) | None => format!("{}{text}", " ".repeat(place.column)),
        }
    }
}

impl<T> Default for Section<T> {
    fn default() -> Self {
        Self { objects: Vec::new(), places: Vec::new(), of_place: Vec::new(), place_of: Vec::new() }
    }
}

impl<T> Section<T> {
    fn as_quick(&self) -> quick::Section<'_> {
        quick::Section::new(&self.places, Box::new(|name| self.place_of[self.number_of(name)?]))
    }

    fn number_of(&self, name: &str) -> Option<usize> {
        self.objects.binary_search_by(|(known, _)| known.as_str().cmp(name)).ok()
    }

    /// The place of the object of this name, and its line now, when it stands in a document with such `lines`.
    fn find(&self, name: &str, lines: &[u32]) -> Option<(&Place, u32)> {
        let number = self.number_of(name)?;
        let line = lines.get(number).copied().filter(|line| *line > 0)?;
        Some((&self.places[self.place_of[number]?], line))
    }

    /// Adds the objects that stand in a document with such `lines` to what is new; `None` when one is both.
    fn add_to(&self, objects: &mut BTreeMap<Name, Arc<T>>, lines: &[u32]) -> Option<()> {
        let there = self.objects.iter().zip(lines).filter(|(_, line)| **line > 0);
        // In their order, which makes the map at once.
        let same: BTreeMap<_, _> =
            there.map(|((name, object), _)| (name.clone(), Arc::clone(object))).collect();
        for (name, object) in std::mem::replace(objects, same) {
            if objects.insert(name, object).is_some() {
                return None;
            }
        }
        Some(())
    }

    /// What is kept of the document after this one, in which `found` stands and means `objects`.
    fn next(&self, found: &[Found<'_>], objects: &BTreeMap<Name, Arc<T>>) -> Self {
        let objects: Vec<_> =
            objects.iter().map(|(name, object)| (name.clone(), Arc::clone(object))).collect();
        let numbers = self.numbers_in(&objects);
        let mut next = Self { place_of: vec![None; objects.len()], objects, ..Self::default() };
        for one in found {
            let (number, place) = match one {
                Found::Same { former, place } => (numbers[self.of_place[*former]], place),
                Found::New { key, place } => (next.number_of(key), place),
            };
            let Some(number) = number else { continue };
            next.place_of[number] = Some(next.places.len());
            next.places.push(place.clone());
            next.of_place.push(number);
        }
        next
    }

    /// For each object its number among others, by name.
    fn numbers_in(&self, others: &[(Name, Arc<T>)]) -> Vec<Option<usize>> {
        let mut rest = others.iter().enumerate().peekable();
        let mut number = |(name, _): &(Name, Arc<T>)| {
            while rest.next_if(|(_, (other, _))| other < name).is_some() {}
            rest.next_if(|(_, (other, _))| other == name).map(|(number, _)| number)
        };
        self.objects.iter().map(&mut number).collect()
    }
}
