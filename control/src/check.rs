//! A document becomes something that can be published, or a list of everything that is wrong with it.

use std::path::Path;

use sluice_dataplane::config::snapshot::Parts;

use crate::compile;
use crate::diff;
use crate::ids::{Holders, IdBook, Reused, Unheld};
use crate::model::Model;
use crate::parse::{self, ERRORS_MAX, Fault, Format, Node, Pointer};

/// A configuration without errors.
#[derive(Debug)]
pub struct Candidate {
    /// What was written.
    pub model: Model,
    /// What workers get.
    pub parts: Parts,
    /// The numbers of its objects.
    pub book: IdBook,
    /// Numbers that changed their object.
    pub reused: Reused,
    /// What is odd, but can be run.
    pub warnings: Vec<Fault>,
}

/// What a candidate is held against.
pub struct Against<'a> {
    /// The running configuration; `None` before the start.
    pub running: Option<&'a Model>,
    /// Its numbers.
    pub book: Option<&'a IdBook>,
    /// What the data plane still holds of retired numbers.
    pub held: &'a dyn Holders,
    /// The generation it would be.
    pub generation: u64,
}

impl Against<'_> {
    /// Nothing runs yet.
    pub const NOTHING: Against<'static> = Against { running: None, book: None, held: &Unheld, generation: 1 };
}

/// Reads and checks the file at `path`; JSON by its name, or by what it looks like.
///
/// # Errors
/// Everything that is wrong, with lines; a file that cannot be read is one error without a line.
pub fn check_file(path: &Path) -> Result<Candidate, Vec<Fault>> {
    let text = read_text(path).map_err(|why| vec![Fault::new("", why)])?;
    check(&parse::read(&text, format_of(path, &text))?, &Against::NOTHING)
}

/// The text of the file at `path`; `-` is standard input.
///
/// # Errors
/// The kernel's, in words.
pub fn read_text(path: &Path) -> Result<String, String> {
    let text = match path.as_os_str() == "-" {
        true => std::io::read_to_string(std::io::stdin()),
        false => std::fs::read_to_string(path),
    };
    text.map_err(|why| format!("expected a readable text file: {why}"))
}

/// The form of a file.
pub fn format_of(path: &Path, text: &str) -> Format {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => Format::Json,
        Some("yaml" | "yml") => Format::Yaml,
        _ => Format::sniff(text),
    }
}

/// Checks a document.
///
/// # Errors
/// Everything that is wrong, by line; [`ERRORS_MAX`] at most and then one that says how many more.
pub fn check(document: &Node<'_>, against: &Against<'_>) -> Result<Candidate, Vec<Fault>> {
    let parsed = parse::parse(document);
    let mut faults = parsed.faults;
    let Some(model) = parsed.model else { return Err(in_order(document, faults)) };
    let mut book = against.book.cloned().unwrap_or_else(|| IdBook::new(&model.system.limits));
    let assigned = book.assign(&model, against.generation, against.held);
    let compiled = compile::compile(&model, &book, against.generation, &parsed.removed);
    faults.extend(compiled.errors);
    if let Some(running) = against.running {
        let restarts = needs_restart(running, &model).into_iter();
        faults.extend(restarts.filter(|fault| !parsed.removed.iter().any(|gone| fault.path.is_within(gone))));
    }
    match assigned {
        Ok(reused) if faults.is_empty() => {
            let warnings = in_order(document, compiled.warnings);
            Ok(Candidate { model, parts: compiled.parts, book, reused, warnings })
        }
        assigned => {
            faults.extend(assigned.err().unwrap_or_default());
            Err(in_order(document, faults))
        }
    }
}

/// Gives every fault its line, and sorts by it.
fn in_order(document: &Node<'_>, mut faults: Vec<Fault>) -> Vec<Fault> {
    for fault in &mut faults {
        fault.line = fault.line.or_else(|| document.line_of(&fault.path));
    }
    faults.sort_by(|one, other| (one.line, &one.path).cmp(&(other.line, &other.path)));
    let more = faults.len().saturating_sub(ERRORS_MAX);
    if more > 0 {
        faults.truncate(ERRORS_MAX);
        faults.push(Fault::new("", format!("and {more} more")));
    }
    faults
}

/// What cannot change while the process runs.
fn needs_restart(running: &Model, model: &Model) -> Vec<Fault> {
    if running.ports == model.ports && running.system == model.system {
        return Vec::new();
    }
    let changed = diff::diff(running, model);
    let fixed = |path: &Pointer| {
        let at = path.prefix(2);
        at.is_within(&"/ports".into()) || FIXED_SETTINGS.iter().any(|fixed| at.as_str() == *fixed)
    };
    let paths =
        changed.added.iter().chain(&changed.removed).chain(changed.changed.iter().map(|change| &change.path));
    let message = "expected no change here: this takes effect at start only, so it needs a restart";
    paths.filter(|path| fixed(path)).map(|path| Fault::new(path.clone(), message)).collect()
}

const FIXED_SETTINGS: &[&str] = &["/system/workers", "/system/limits", "/system/dpdk", "/system/idle"];
