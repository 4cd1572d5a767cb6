//! Which rule a request follows, by the precedence of the Gateway API.
//!
//! ```text
//!   host    exact ▸ longest wildcard ▸ any
//!   path    exact ▸ longest prefix ▸ regular expression ▸ any (no path, or the prefix "/")
//!   then    with a method ▸ more header matches ▸ more query matches ▸ first in order
//! ```
//!
//! The first rule in this order that matches in every part is it: a request that matches the host of one rule but not
//! its path goes on to rules with a less specific host. Source: HTTPRouteRule and HTTPRouteMatch of
//! gateway.networking.k8s.io/v1, which leaves the place of regular expressions open.

mod pattern;
mod value;

use hashbrown::HashMap;

use super::request::Request;

pub use pattern::{Pattern, PatternError};
pub use value::{FieldMatch, QueryMatch, ValueMatch};

/// A host that a rule is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostMatch {
    /// This one: a name, an IPv4 address or an IPv6 address in brackets, without a port.
    Exact(String),
    /// All names that end with a dot and this: `example.com` of `*.example.com`.
    Wildcard(String),
}

/// The paths that a rule is for.
#[derive(Debug, Clone, PartialEq)]
pub enum PathMatch {
    /// This path.
    Exact(String),
    /// This path and all below it: `/a` is for `/a`, `/a/` and `/a/b`, not for `/ab`. A final `/` means nothing.
    Prefix(String),
    /// All that match as a whole.
    Regex(Pattern),
}

/// What a request must have to follow a rule.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rule {
    /// One of these hosts; any when there is none.
    pub hosts: Vec<HostMatch>,
    /// Such a path.
    pub path: Option<PathMatch>,
    /// This method.
    pub method: Option<String>,
    /// All of these fields.
    pub fields: Vec<FieldMatch>,
    /// All of these parameters.
    pub queries: Vec<QueryMatch>,
}

/// Rules, compiled. Looking one up takes a hash for each label of the host and each distinct length of a prefix, and
/// then the rules that share host and path one by one.
#[derive(Debug, Default)]
pub struct Routes {
    exact: HashMap<Box<[u8]>, Paths>,
    /// By what follows `*`, with its dot.
    wildcard: HashMap<Box<[u8]>, Paths>,
    any: Paths,
}

/// The rules of one host.
#[derive(Debug, Default)]
struct Paths {
    exact: HashMap<Box<[u8]>, Vec<Entry>>,
    /// Without their final `/`.
    prefixes: HashMap<Box<[u8]>, Vec<Entry>>,
    /// The lengths that prefixes have, longest first.
    lengths: Vec<usize>,
    patterns: Vec<(Pattern, Entry)>,
    any: Vec<Entry>,
}

/// What is still to be compared when host and path match.
#[derive(Debug, Clone)]
struct Entry {
    /// Which rule, in the order given.
    rule: usize,
    method: Option<Box<[u8]>>,
    fields: Box<[FieldMatch]>,
    queries: Box<[QueryMatch]>,
}

impl Routes {
    /// Compiles rules; of equals the first wins. Allocates; for the control thread.
    pub fn compile(rules: &[Rule]) -> Self {
        let mut routes = Self::default();
        for (index, rule) in rules.iter().enumerate() {
            if rule.hosts.is_empty() {
                routes.any.add(index, rule);
            }
            for host in &rule.hosts {
                routes.paths_of(host).add(index, rule);
            }
        }
        routes.each(Paths::sort);
        routes
    }

    fn paths_of(&mut self, host: &HostMatch) -> &mut Paths {
        match host {
            HostMatch::Exact(name) => self.exact.entry(plain_host(name)).or_default(),
            HostMatch::Wildcard(name) => self.wildcard.entry(plain_host(&format!(".{name}"))).or_default(),
        }
    }

    fn each(&mut self, change: impl Fn(&mut Paths)) {
        self.exact.values_mut().chain(self.wildcard.values_mut()).for_each(&change);
        change(&mut self.any);
    }

    /// The rule that this request follows, by its index; `None` when there is none. Allocates nothing.
    pub fn find(&self, request: &Request) -> Option<usize> {
        let host = request.host();
        let host = host.strip_suffix(b".").unwrap_or(host);
        let exact = self.exact.get(host);
        let dots = memchr::memchr_iter(b'.', host);
        let wildcards =
            dots.filter(|_| !self.wildcard.is_empty()).filter_map(|at| self.wildcard.get(&host[at..]));
        let mut tables = exact.into_iter().chain(wildcards).chain([&self.any]);
        tables.find_map(|paths| paths.find(request))
    }
}

impl Paths {
    fn add(&mut self, index: usize, rule: &Rule) {
        let entry = Entry {
            rule: index,
            method: rule.method.as_ref().map(|method| method.as_bytes().into()),
            fields: rule.fields.clone().into(),
            queries: rule.queries.clone().into(),
        };
        match &rule.path {
            Some(PathMatch::Exact(path)) => self.exact.entry(path.as_bytes().into()).or_default().push(entry),
            Some(PathMatch::Regex(pattern)) => self.patterns.push((pattern.clone(), entry)),
            Some(PathMatch::Prefix(path)) if !path.trim_end_matches('/').is_empty() => {
                let prefix = path.trim_end_matches('/').as_bytes();
                self.prefixes.entry(prefix.into()).or_default().push(entry);
            }
            Some(PathMatch::Prefix(_)) | None => self.any.push(entry),
        }
    }

    /// Puts what is compared first in front; the order given decides among equals.
    fn sort(&mut self) {
        let lists = self.exact.values_mut().chain(self.prefixes.values_mut()).chain([&mut self.any]);
        lists.for_each(|entries| entries.sort_by_key(Entry::rank));
        self.patterns.sort_by_key(|(_, entry)| entry.rank());
        self.lengths = self.prefixes.keys().map(|prefix| prefix.len()).collect();
        self.lengths.sort_unstable_by(|a, b| b.cmp(a));
        self.lengths.dedup();
    }

    fn find(&self, request: &Request) -> Option<usize> {
        let path = request.path().unwrap_or_default();
        let first = |entries: &Vec<Entry>| first(entries, request);
        let prefixes = self.lengths.iter().filter_map(|&len| self.prefixes.get(prefix(path, len)?));
        let exact = self.exact.get(path).and_then(first);
        let found = exact.or_else(|| prefixes.filter_map(first).next());
        found.or_else(|| self.find_pattern(path, request)).or_else(|| first(&self.any))
    }

    fn find_pattern(&self, path: &[u8], request: &Request) -> Option<usize> {
        let matches = |(pattern, entry): &&(Pattern, Entry)| entry.matches(request) && pattern.matches(path);
        self.patterns.iter().find(matches).map(|(_, entry)| entry.rule)
    }
}

/// The first of these that the request follows.
fn first(entries: &[Entry], request: &Request) -> Option<usize> {
    entries.iter().find(|entry| entry.matches(request)).map(|entry| entry.rule)
}

impl Entry {
    fn rank(&self) -> impl Ord + use<> {
        use std::cmp::Reverse;
        (self.method.is_none(), Reverse(self.fields.len()), Reverse(self.queries.len()), self.rule)
    }

    fn matches(&self, request: &Request) -> bool {
        self.method.as_ref().is_none_or(|method| **method == *request.method_name())
            && self.fields.iter().all(|field| field.matches(&request.fields))
            && self.queries.iter().all(|query| query.matches(request.query().unwrap_or_default()))
    }
}

/// The first bytes of the path when they end with a segment.
fn prefix(path: &[u8], len: usize) -> Option<&[u8]> {
    let (start, rest) = path.split_at_checked(len)?;
    matches!(rest, [] | [b'/', ..]).then_some(start)
}

/// As requests have it: lower case, no final dot.
fn plain_host(name: &str) -> Box<[u8]> {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase().into_bytes().into()
}

#[cfg(test)]
mod tests;
