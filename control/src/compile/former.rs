//! What a compilation takes over from the one before: pools and virtual servers that would become what they are.
//!
//! What one becomes follows from what is written of it, from everything that is neither pool nor virtual server, and
//! of a virtual server also from the pools that it names and from the links of all. So it is taken over where none of
//! that differs. One that there was a warning about is compiled again, and so is the warning.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::iter::{Peekable, Zip};
use std::slice;
use std::sync::Arc;

use hashbrown::HashSet;
use sluice_dataplane::config::ids::LinkId;
use sluice_dataplane::config::snapshot::{Parts, Pool, Virtual};

use crate::model::shared::changes;
use crate::model::{self, Model, Name, VirtualServer};

/// A configuration that was compiled without an error, and what became of it.
#[derive(Clone, Copy)]
pub struct Former<'a> {
    /// The configuration.
    pub model: &'a Model,
    /// What became of it, in the same order.
    pub parts: &'a Parts,
    /// What else is to be known of it.
    pub context: &'a Context,
}

/// What is not in the parts, and still decides what can be taken over.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// Pools that there was a warning about.
    pub(super) odd_pools: BTreeSet<Name>,
    /// Virtual servers that there was a warning about.
    pub(super) odd_virtual_servers: BTreeSet<Name>,
    /// Links that something is configured on.
    pub(super) links: BTreeSet<LinkId>,
}

impl<'a> Former<'a> {
    /// Pools that may be taken over.
    pub(super) fn pools(self) -> Walk<'a, model::Pool, Pool> {
        Walk::new(&self.model.pools, &self.parts.pools, &self.context.odd_pools)
    }

    /// Virtual servers that may be taken over, as far as none of their pools is among [`Former::changed_pools`].
    pub(super) fn virtual_servers(self) -> Walk<'a, VirtualServer, Virtual> {
        Walk::new(&self.model.virtual_servers, &self.parts.virtuals, &self.context.odd_virtual_servers)
    }

    /// Pools that are not the same in `model`.
    pub(super) fn changed_pools(self, model: &'a Model) -> HashSet<&'a Name> {
        changes(&self.model.pools, &model.pools).into_iter().map(|changed| changed.name).collect()
    }
}

/// Goes through objects and what became of them, in step with those of another configuration.
pub(super) struct Walk<'a, T, C> {
    before: Peekable<Zip<Objects<'a, T>, slice::Iter<'a, C>>>,
    odd: &'a BTreeSet<Name>,
}

type Objects<'a, T> = btree_map::Iter<'a, Name, Arc<T>>;

/// What became of an object.
pub(super) struct Was<'a, C> {
    pub(super) compiled: &'a C,
    /// True when it was the same object, and nothing was odd about it.
    pub(super) is_same: bool,
}

impl<'a, T, C> Walk<'a, T, C> {
    fn new(objects: &'a BTreeMap<Name, Arc<T>>, compiled: &'a [C], odd: &'a BTreeSet<Name>) -> Self {
        Self { before: objects.iter().zip(compiled).peekable(), odd }
    }

    /// What became of the object of that name before. Names come in their order.
    pub(super) fn step(&mut self, name: &Name, object: &Arc<T>) -> Option<Was<'a, C>> {
        while self.before.next_if(|((before, _), _)| *before < name).is_some() {}
        let ((_, was), compiled) = self.before.next_if(|((before, _), _)| *before == name)?;
        Some(Was { compiled, is_same: Arc::ptr_eq(was, object) && !self.odd.contains(name) })
    }
}
