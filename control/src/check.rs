//! A document becomes something that can be published, or a list of everything that is wrong with it.

use std::path::Path;
use std::sync::Arc;

use sluice_dataplane::config::snapshot::Parts;

use crate::compile::{self, Context, Former};
use crate::diff;
use crate::ids::{Holders, IdBook, Reused, Unheld};
use crate::model::Model;
use crate::parse::{self, ERRORS_MAX, Fault, Format, Kept, Node, Pointer, Source};

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
    /// What the next compilation is to know of this one.
    pub context: Context,
    /// What the next document need not say anew.
    pub kept: Kept,
}

/// What a candidate is held against.
pub struct Against<'a> {
    /// The running configuration; `None` before the start.
    pub running: Option<&'a Model>,
    /// The running configuration and what became of it, with the numbers in `book`: what is the same object is taken
    /// over from it. The outcome is the one without it.
    pub former: Option<Former<'a>>,
    /// Its numbers.
    pub book: Option<&'a IdBook>,
    /// What the data plane still holds of retired numbers.
    pub held: &'a dyn Holders,
    /// The generation it would be.
    pub generation: u64,
}

impl Against<'_> {
    /// Nothing runs yet.
    pub const NOTHING: Against<'static> =
        Against { running: None, former: None, book: None, held: &Unheld, generation: 1 };
}

/// Reads and checks the file at `path`; JSON by its name, or by what it looks like.
///
/// # Errors
/// Everything that is wrong, with lines; a file that cannot be read is one error without a line.
pub fn check_file(path: &Path) -> Result<Candidate, Vec<Fault>> {
    let text = Arc::new(read_text(path).map_err(|why| vec![Fault::new("", why)])?);
    let kept = Kept::default();
    check_source(&Source::read(&text, format_of(path, &text), &kept)?, &Against::NOTHING)
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

/// Checks a document of which only what is new was read. Gives what [`check`] gives of the whole.
///
/// # Errors
/// As [`check`].
pub fn check_source(source: &Source<'_>, against: &Against<'_>) -> Result<Candidate, Vec<Fault>> {
    let line_of = |path: &Pointer| source.line_of(path);
    let shared = against.former.and_then(|former| check_beside(source.model()?, former, against, line_of));
    let candidate = match shared {
        Some(candidate) => candidate,
        None => check_alone(source.whole()?.as_ref(), against)?,
    };
    let kept = source.keep(&candidate.model);
    Ok(Candidate { kept, ..candidate })
}

/// Checks a document.
///
/// # Errors
/// Everything that is wrong, by line; [`ERRORS_MAX`] at most and then one that says how many more.
pub fn check(document: &Node<'_>, against: &Against<'_>) -> Result<Candidate, Vec<Fault>> {
    let model = || parse::parse_right(document);
    let line_of = |path: &Pointer| document.line_of(path);
    let shared = against.former.and_then(|former| check_beside(model()?, former, against, line_of));
    shared.map_or_else(|| check_alone(document, against), Ok)
}

/// Makes `model` a candidate that shares with `former` what did not change; `None` when something is wrong with it,
/// which [`check_alone`] says then.
fn check_beside(
    mut model: Model,
    former: Former<'_>,
    against: &Against<'_>,
    line_of: impl Fn(&Pointer) -> Option<u32>,
) -> Option<Candidate> {
    model.share_with(former.model);
    let mut book = against.book?.clone();
    let reused = book.assign_after(former.model, &model, against.generation, against.held).ok()?;
    let compiled = compile::compile_after(&model, &book, against.generation, former);
    let is_right = compiled.errors.is_empty() && needs_restart(former.model, &model).is_empty();
    is_right.then(|| {
        let (parts, context, kept) = (compiled.parts, compiled.context, Kept::default());
        let warnings = in_order(line_of, compiled.warnings);
        Candidate { model, parts, book, reused, warnings, context, kept }
    })
}

/// Checks a document that shares nothing.
fn check_alone(document: &Node<'_>, against: &Against<'_>) -> Result<Candidate, Vec<Fault>> {
    let parsed = parse::parse(document);
    let line_of = |path: &Pointer| document.line_of(path);
    let mut faults = parsed.faults;
    let Some(model) = parsed.model else { return Err(in_order(line_of, faults)) };
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
            let (parts, context, kept) = (compiled.parts, compiled.context, Kept::default());
            let warnings = in_order(line_of, compiled.warnings);
            Ok(Candidate { model, parts, book, reused, warnings, context, kept })
        }
        assigned => {
            faults.extend(assigned.err().unwrap_or_default());
            Err(in_order(line_of, faults))
        }
    }
}

/// Gives every fault its line, and sorts by it.
fn in_order(line_of: impl Fn(&Pointer) -> Option<u32>, mut faults: Vec<Fault>) -> Vec<Fault> {
    for fault in &mut faults {
        fault.line = fault.line.or_else(|| line_of(&fault.path));
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
