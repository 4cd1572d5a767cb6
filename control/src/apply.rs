//! One change of the running configuration, from the document to the last worker. One at a time.
//!
//! ```text
//!   lock ─▶ If-Match ─▶ check ─▶ listen ─▶ build ─▶ publish, wait for each worker ─▶ answer
//!                         │ refused: nothing has changed
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use sluice_dataplane::config::snapshot::Snapshot;

use crate::access_log;
use crate::check::{Against, Candidate, check, check_source};
use crate::compile::Former;
use crate::diff::{Diff, diff};
use crate::ids::MemberKey;
use crate::merge::merge;
use crate::model::{Model, Name, StatedMember};
use crate::parse::{Fault, Node, Source};
use crate::partial::check_partially;
use crate::process::{Process, View, etag};
use crate::publish::{Late, publish};

/// What is wanted.
pub struct Request<'t> {
    /// The new configuration, or a change of the running one.
    pub document: Document<'t>,
    /// Only say what would happen.
    pub dry_run: bool,
    /// Keep the running form of what is refused.
    pub partial: bool,
    /// Only if the running configuration has one of these tags; `*` for any.
    pub if_match: Option<String>,
}

/// A configuration, or a change of one.
pub enum Document<'t> {
    /// The whole configuration.
    Whole(Source<'t>),
    /// A merge patch of the running one.
    Patch(Value),
}

/// What an apply did.
#[derive(Debug, Serialize)]
pub struct Applied {
    /// The generation in force; unchanged when nothing differs.
    pub generation: u64,
    /// The tag of the configuration in force.
    #[serde(serialize_with = "as_text")]
    pub etag: Arc<str>,
    /// True when nothing was done.
    pub dry_run: bool,
    /// What is different.
    #[serde(flatten)]
    pub diff: Diff,
    /// With `mode=partial`: what was refused, and kept as it was.
    pub refused: Vec<Fault>,
    /// What is odd.
    pub warnings: Vec<Fault>,
    /// How many workers took it.
    pub workers: usize,
    /// Milliseconds until the last one did.
    pub elapsed_ms: f64,
}

/// Why an apply did nothing, or not all.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The running configuration is another one than the client thinks.
    #[error("the running configuration is {0}, which If-Match does not name")]
    Changed(Arc<str>),
    /// Something is wrong with the document. Nothing has changed.
    #[error("the configuration is refused and nothing has changed")]
    Refused(Vec<Fault>),
    /// It is in force, but not on every worker yet.
    #[error(transparent)]
    Late(#[from] Late),
    /// There is no such pool or member.
    #[error("there is no {0}")]
    Unknown(String),
}

impl Process {
    /// Makes `request`'s document the running configuration.
    ///
    /// # Errors
    /// [`ApplyError`].
    pub async fn apply(self: &Arc<Self>, request: Request<'_>) -> Result<Applied, ApplyError> {
        let Request { document, dry_run, partial, if_match } = request;
        let _one_at_a_time = self.change.lock().await;
        let view = self.view();
        check_match(if_match.as_deref(), &view.etag)?;
        let (mut candidate, refused) = self.candidate(&view, document, partial)?;
        let diff = diff(&view.model, &candidate.model);
        if dry_run || diff.is_empty() {
            if !dry_run {
                self.stay_with(&view, &mut candidate);
            }
            return Ok(self.unchanged(&view, candidate, diff, refused, dry_run));
        }
        let listener = self.telemetry.listen(&candidate.model).await;
        let listener = listener.map_err(|fault| ApplyError::Refused(vec![fault]))?;
        access_log::check(&candidate.model).map_err(|fault| ApplyError::Refused(vec![fault]))?;
        let (next, warnings) = self.next_view(&view, candidate);
        let (model, snapshot, etag) =
            (Arc::clone(&next.model), Arc::clone(&next.snapshot), Arc::clone(&next.etag));
        let retired = self.set_view(next);
        self.telemetry.follow(&model, listener, self);
        self.access_logs.follow(&model, &snapshot);
        let published = publish(self.workers(), &snapshot).await;
        // Freed once the answer is on its way.
        tokio::spawn(async move { drop((view, retired)) });
        let elapsed = published?;
        let generation = snapshot.generation();
        tracing::info!(generation, elapsed = ?elapsed, "configuration applied");
        let (workers, elapsed_ms) = (self.workers().len(), milliseconds(elapsed));
        Ok(Applied { generation, etag, dry_run: false, diff, refused, warnings, workers, elapsed_ms })
    }

    fn candidate(
        &self,
        view: &View,
        document: Document<'_>,
        partial: bool,
    ) -> Result<(Candidate, Vec<Fault>), ApplyError> {
        let former = Former { model: &view.model, parts: view.snapshot.parts(), context: &view.context };
        let against = Against {
            running: Some(&view.model),
            former: Some(former),
            book: Some(&view.book),
            held: self,
            generation: view.snapshot.generation() + 1,
        };
        let alone = |candidate| (candidate, Vec::new());
        let checked = match document {
            Document::Whole(source) if partial => {
                source.whole().and_then(|node| check_partially(node.into_owned(), &against))
            }
            Document::Whole(source) => check_source(&source, &against).map(alone),
            Document::Patch(patch) => {
                let node = patched(&view.model, &patch);
                if partial { check_partially(node, &against) } else { check(&node, &against).map(alone) }
            }
        };
        checked.map_err(ApplyError::Refused)
    }

    fn unchanged(
        &self,
        view: &View,
        new: Candidate,
        diff: Diff,
        refused: Vec<Fault>,
        dry_run: bool,
    ) -> Applied {
        Applied {
            generation: view.snapshot.generation(),
            etag: Arc::clone(&view.etag),
            dry_run,
            diff,
            refused,
            warnings: new.warnings,
            workers: self.workers().len(),
            elapsed_ms: 0.0,
        }
    }

    /// The document differs in nothing, but what it states of members wins over what was said since, and the next one
    /// will be written as it is.
    fn stay_with(&self, view: &View, candidate: &mut Candidate) {
        let said = still_said(&view.said, &candidate.model);
        let kept = Some(std::mem::take(&mut candidate.kept)).filter(|kept| !kept.is_empty());
        if said != *view.said || kept.is_some() {
            let kept = kept.map_or_else(|| Arc::clone(&view.kept), Arc::new);
            self.set_view(View { said: Arc::new(said), kept, ..View::clone(view) });
        }
    }

    fn next_view(&self, view: &View, candidate: Candidate) -> (View, Vec<Fault>) {
        let said = still_said(&view.said, &candidate.model);
        let next = View {
            etag: etag(&candidate.model),
            model: Arc::new(candidate.model),
            snapshot: Arc::new(Snapshot::build_after(candidate.parts, &view.snapshot)),
            book: Arc::new(candidate.book),
            warnings: Arc::new(candidate.warnings.clone()),
            context: Arc::new(candidate.context),
            kept: Arc::new(candidate.kept),
            said: Arc::new(said),
            baselines: Arc::new(self.rebased(&view.baselines, &candidate.reused)),
        };
        (next, candidate.warnings)
    }

    /// Changes a member's state, at once and on every worker. Stays over applies that do not state one.
    ///
    /// # Errors
    /// [`ApplyError::Unknown`].
    pub async fn say_member_state(
        &self,
        pool: &str,
        member: (IpAddr, u16),
        state: StatedMember,
    ) -> Result<(), ApplyError> {
        let _one_at_a_time = self.change.lock().await;
        let view = self.view();
        let unknown = |what: &str| ApplyError::Unknown(what.into());
        let (name, members) =
            view.model.pools.get_key_value(pool).ok_or_else(|| unknown(&format!("pool \"{pool}\"")))?;
        if !members.members.iter().any(|known| (known.address.0, known.port.0) == member) {
            let place = crate::stats::endpoint(member.0, member.1);
            return Err(unknown(&format!("member {place} in pool \"{pool}\"")));
        }
        let mut said = BTreeMap::clone(&view.said);
        said.insert((name.clone(), member.0, member.1), state);
        self.set_view(View { said: Arc::new(said), ..View::clone(&view) });
        tracing::info!(pool, member = %crate::stats::endpoint(member.0, member.1), ?state, "member state changed");
        Ok(())
    }
}

fn patched(model: &Model, patch: &Value) -> Node<'static> {
    let mut json = model.to_json();
    merge(&mut json, patch);
    Node::from_json(&json)
}

/// What was said and still holds: the member is there, and the file does not state another state.
fn still_said(said: &BTreeMap<MemberKey, StatedMember>, model: &Model) -> BTreeMap<MemberKey, StatedMember> {
    let holds = |(pool, address, port): &(Name, IpAddr, u16)| {
        let pool = model.pools.get(pool);
        let member = |member: &&crate::model::Member| (member.address.0, member.port.0) == (*address, *port);
        pool.and_then(|pool| pool.members.iter().find(member)).is_some_and(|member| member.state.is_none())
    };
    said.iter().filter(|(key, _)| holds(key)).map(|(key, state)| (key.clone(), *state)).collect()
}

/// RFC 9110 section 13.1.1, with strong comparison.
fn check_match(wanted: Option<&str>, etag: &Arc<str>) -> Result<(), ApplyError> {
    let Some(wanted) = wanted else { return Ok(()) };
    let named = wanted.split(',').map(str::trim).any(|tag| tag == "*" || tag == &**etag);
    if named { Ok(()) } else { Err(ApplyError::Changed(Arc::clone(etag))) }
}

fn as_text<S: serde::Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

fn milliseconds(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}
