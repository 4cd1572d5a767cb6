//! `?mode=partial`: what is refused of a document keeps its running form, and the rest is applied.
//!
//! ```text
//!   check ─ errors ─▶ put the running form of each refused object back ─▶ check again …
//!                     (an object that is not running is left out)
//! ```

use std::collections::BTreeSet;

use crate::check::{Against, Candidate, check};
use crate::model::Model;
use crate::parse::{Fault, Node, Pointer, Value};

/// Checks `document`, keeping the running form of what is refused; also gives what was refused and why.
///
/// # Errors
/// What is wrong, when it cannot be told to one object, or the running form does not help.
pub fn check_partially(
    mut document: Node<'_>,
    against: &Against<'_>,
) -> Result<(Candidate, Vec<Fault>), Vec<Fault>> {
    let original = document.clone();
    let running = against.running.map(|model| Node::from_json(&model.to_json()));
    let mut refused: Vec<Fault> = Vec::new();
    let mut kept = BTreeSet::new();
    loop {
        let faults = match check(&document, against) {
            Ok(candidate) => return Ok((candidate, refused)),
            Err(faults) => faults,
        };
        let restored = restore(&mut document, running.as_ref(), against.running, &faults, &mut kept);
        if restored == 0 {
            return Err(faults);
        }
        refused
            .extend(faults.into_iter().map(|fault| Fault { line: original.line_of(&fault.path), ..fault }));
    }
}

/// Puts the running form of every object that `faults` blame back into `document`; returns how many.
fn restore(
    document: &mut Node<'_>,
    running: Option<&Node<'static>>,
    model: Option<&Model>,
    faults: &[Fault],
    kept: &mut BTreeSet<Pointer>,
) -> usize {
    let before = kept.len();
    let blamed: Vec<Pointer> =
        faults.iter().filter_map(|fault| to_blame(fault, document, running, kept)).collect();
    for object in blamed {
        if kept.insert(object.clone()) {
            let form = running_form(&object, document, running, model);
            document.put(&object, form.unwrap_or(Node { line: 0, value: Value::Removed }));
        }
    }
    kept.len() - before
}

/// The object to put back: the one at fault, unless it is as it runs already; then the one it refers to.
fn to_blame(
    fault: &Fault,
    document: &Node<'_>,
    running: Option<&Node<'static>>,
    kept: &BTreeSet<Pointer>,
) -> Option<Pointer> {
    let own = fault.path.prefix(2);
    let other = fault.refers.as_ref().map(|object| object.prefix(2));
    let runs_so = |object: &Pointer| {
        let same = running.and_then(|running| running.at(object)).map(plain);
        same.is_some() && same == document.at(object).map(plain)
    };
    let usable = |object: &Pointer| object.len() == 2 && !kept.contains(object);
    [Some(own), other].into_iter().flatten().find(|object| usable(object) && !runs_so(object))
}

/// The value of a node without its lines.
fn plain(node: &Node<'_>) -> serde_json::Value {
    match &node.value {
        Value::Null | Value::Removed => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(number) => serde_json::json!(*number as f64),
        Value::Large(number) => serde_json::json!(**number as f64),
        Value::Float(number) => (*number).into(),
        Value::Text(text) => text.as_ref().into(),
        Value::List(items) => items.iter().map(plain).collect(),
        Value::Map(entries) => {
            entries.iter().map(|entry| (entry.key.to_string(), plain(&entry.node))).collect()
        }
    }
}

/// What runs in the place of `object`; a route is found by its destination.
fn running_form(
    object: &Pointer,
    document: &Node<'_>,
    running: Option<&Node<'static>>,
    model: Option<&Model>,
) -> Option<Node<'static>> {
    let running = running?;
    if !object.is_within(&"/routes".into()) {
        return running.at(object).cloned();
    }
    let destination = document.at(&object.child("destination"))?;
    let Value::Text(wanted) = &destination.value else { return None };
    let number = model?.routes.iter().position(|route| route.destination.to_string() == *wanted)?;
    running.at(&Pointer::root().child("routes").child(&number.to_string())).cloned()
}
