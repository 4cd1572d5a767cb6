//! Routes of a full proxy: which requests go to which pools.

use std::collections::HashMap;
use std::sync::Arc;

use sluice_dataplane::config::proxy as plane;
use sluice_dataplane::filter;
use sluice_dataplane::http::HttpLimits;
use sluice_dataplane::http::route::{
    FieldMatch, HostMatch, PathMatch, Pattern, QueryMatch, Rule, ValueMatch,
};

use super::filters::Site;
use super::proxy::is_list;
use super::{Compile, legal};
use crate::model::http::{self as model, HttpRoute, RouteMatch, ValueMatches, ValueRow};
use crate::model::{Filter, OneOrMany, Span};
use crate::parse::Pointer;

impl Compile<'_> {
    pub(super) fn http_routes(&mut self, site: &mut Site<'_>) -> plane::RouteTable {
        let list = site.path.child("routes");
        let (mut routes, mut first_with) = (Vec::new(), HashMap::new());
        for (index, said) in site.server.routes.iter().enumerate() {
            let place = self.place_in(&list, index);
            if let Some(name) = &said.name
                && let Some(first) = first_with.insert(name.as_str(), place.clone())
            {
                self.error(
                    place.child("name"),
                    format!("expected each name once; {first} is \"{name}\" too"),
                );
            }
            let name = said.name.as_ref().map_or_else(|| index.to_string(), ToString::to_string);
            routes.extend(self.http_route(&place, said, &name.into(), site));
        }
        plane::RouteTable::new(routes)
    }

    /// A route of the operator's: one of the data plane's for each row.
    fn http_route(
        &mut self,
        path: &Pointer,
        said: &HttpRoute,
        name: &Arc<str>,
        site: &mut Site<'_>,
    ) -> Vec<plane::Route> {
        self.not_zero(path, "response_timeout", said.response_timeout);
        site.prefix = has_prefix(said) || self.lost_in(path.child("match").as_str());
        let (rules, pools) = (self.rules(path, said, &site.limits), self.shares(path, said, site));
        let filters: Vec<filter::Filter> = self.filters(&path.child("filters"), &said.filters, site);
        let route = |rule| plane::Route {
            name: Arc::clone(name),
            rule,
            pools: pools.clone(),
            filters: filters.clone(),
            request_timeout_ms: said.request_timeout.map_or(0, Span::as_ms),
            response_timeout_ms: said.response_timeout.map_or(0, Span::as_ms),
        };
        rules.into_iter().map(route).collect()
    }

    fn shares(&mut self, path: &Pointer, said: &HttpRoute, site: &Site<'_>) -> Vec<plane::WeightedPool> {
        let (place, list) = (path.child("pool"), path.child("pools"));
        let Some(pools) = &said.pools else {
            let Some(pool) = &said.pool else {
                self.some_pool(path, said, site);
                return Vec::new();
            };
            let pool = self.pool_named(place, site.path, site.server, pool);
            return pool.map(|pool| plane::WeightedPool { pool, weight: 1 }).into_iter().collect();
        };
        if said.pool.is_some() {
            self.error(place, "expected either pool or pools");
        }
        if pools.iter().all(|share| share.weight.get() == 0) && !self.lost_in(list.as_str()) {
            self.error(list.clone(), "expected at least one pool with a weight of more than 0");
        }
        let mut shares = Vec::with_capacity(pools.len());
        for (index, share) in pools.iter().enumerate() {
            let place = self.place_in(&list, index).child("pool");
            let pool = self.pool_named(place, site.path, site.server, &share.pool);
            shares.extend(pool.map(|pool| plane::WeightedPool { pool, weight: share.weight.as_u32() }));
        }
        shares
    }

    /// Reports a route whose requests go nowhere.
    fn some_pool(&mut self, path: &Pointer, said: &HttpRoute, site: &Site<'_>) {
        let answers = |filters: &[Filter]| filters.iter().any(Filter::answers);
        let answered = answers(&said.filters) || answers(&site.server.filters);
        let lost = [path.child("pool"), path.child("pools"), path.child("filters"), site.path.child("pool")];
        let lost = lost.iter().any(|place| self.lost_in(place.as_str()));
        if site.server.pool.is_none() && !answered && !lost {
            let why = "expected \"pool\": the virtual server has none, and no filter answers";
            self.error(path.child("pool"), why);
        }
    }

    fn rules(&mut self, path: &Pointer, said: &HttpRoute, limits: &HttpLimits) -> Vec<Rule> {
        let place = path.child("match");
        let Some(matches) = &said.matches else { return vec![Rule::default()] };
        if matches.as_slice().is_empty() && !self.lost_in(place.as_str()) {
            self.error(place.clone(), "expected at least one row; leave it out for every request");
        }
        let mut rules = Vec::new();
        for (index, row) in matches.as_slice().iter().enumerate() {
            let at = self.item_place(&place, is_list(matches), index);
            rules.push(self.rule(&at, row, limits));
        }
        rules
    }

    fn rule(&mut self, path: &Pointer, row: &RouteMatch, limits: &HttpLimits) -> Rule {
        if let Some(method) = row.method.as_ref().filter(|method| !legal::is_token(method)) {
            self.error(path.child("method"), format!("expected a method such as GET; found \"{method}\""));
        }
        let fields = self.values(&path.child("headers"), &row.headers, legal::field_name);
        let queries = self.values(&path.child("query"), &row.query, |_| Ok(()));
        Rule {
            hosts: row.host.as_ref().map(|hosts| self.hosts(&path.child("host"), hosts)).unwrap_or_default(),
            path: row.path.as_ref().and_then(|said| self.path_match(&path.child("path"), said, limits)),
            method: row.method.clone(),
            fields: fields.into_iter().map(|(name, value)| FieldMatch { name, value }).collect(),
            queries: queries.into_iter().map(|(name, value)| QueryMatch { name, value }).collect(),
        }
    }

    fn hosts(&mut self, path: &Pointer, hosts: &OneOrMany<String>) -> Vec<HostMatch> {
        if hosts.as_slice().is_empty() && !self.lost_in(path.as_str()) {
            self.error(path.clone(), "expected at least one host; leave it out for any");
        }
        let mut matches = Vec::new();
        for (index, host) in hosts.as_slice().iter().enumerate() {
            let rest = host.strip_prefix("*.");
            let wild = |rest: &str| !rest.starts_with('[') && rest.parse::<std::net::Ipv4Addr>().is_err();
            if !legal::is_host(rest.unwrap_or(host)) || !rest.is_none_or(wild) {
                let why = format!(
                    "expected a host without a port, such as www.example.com or \"*.example.com\"; found \"{host}\""
                );
                let at = self.item_place(path, is_list(hosts), index);
                self.error(at, why);
            }
            matches.push(match rest {
                Some(rest) => HostMatch::Wildcard(rest.into()),
                None => HostMatch::Exact(host.clone()),
            });
        }
        matches
    }

    fn path_match(
        &mut self,
        path: &Pointer,
        said: &model::PathMatch,
        limits: &HttpLimits,
    ) -> Option<PathMatch> {
        // Text without a map is a prefix and has no place of its own.
        let (text, kind) = match said {
            model::PathMatch::Exact(text) => (text, "exact"),
            model::PathMatch::Prefix(text) => (text, "prefix"),
            model::PathMatch::Regex(text) => {
                return self.pattern(path.child("regex"), text).map(PathMatch::Regex);
            }
        };
        if let Err(why) = legal::path(text, limits) {
            self.error(path.child(kind), why);
        }
        Some(if kind == "exact" { PathMatch::Exact(text.clone()) } else { PathMatch::Prefix(text.clone()) })
    }

    fn pattern(&mut self, path: Pointer, text: &str) -> Option<Pattern> {
        let pattern = Pattern::new(text);
        if let Err(why) = &pattern {
            self.error(path, format!("expected a regular expression of moderate size: {why}"));
        }
        pattern.ok()
    }

    fn values(
        &mut self,
        path: &Pointer,
        said: &ValueMatches,
        name_of: impl Fn(&str) -> Result<(), String>,
    ) -> Vec<(String, ValueMatch)> {
        let mut matches = Vec::new();
        match said {
            ValueMatches::Map(values) => {
                for (name, value) in values {
                    if let Err(why) = name_of(name) {
                        self.error(path.child(name), why);
                    }
                    matches.push((name.clone(), ValueMatch::Exact(value.clone())));
                }
            }
            ValueMatches::Rows(rows) => {
                for (index, row) in rows.iter().enumerate() {
                    let place = self.place_in(path, index);
                    if let Err(why) = name_of(&row.name) {
                        self.error(place.child("name"), why);
                    }
                    matches.extend(self.value(&place, row).map(|value| (row.name.clone(), value)));
                }
            }
        }
        matches
    }

    fn value(&mut self, path: &Pointer, row: &ValueRow) -> Option<ValueMatch> {
        match (&row.value, &row.regex, row.present) {
            (Some(value), None, None) => Some(ValueMatch::Exact(value.clone())),
            (None, Some(regex), None) => self.pattern(path.child("regex"), regex).map(ValueMatch::Regex),
            (None, None, Some(true)) => Some(ValueMatch::Present),
            _ if self.lost_in(path.as_str()) => None,
            _ => {
                self.error(path.clone(), "expected one of value, regex and present: true");
                None
            }
        }
    }
}

/// True when every request of the route has matched a prefix.
fn has_prefix(said: &HttpRoute) -> bool {
    let is_prefix = |row: &RouteMatch| matches!(row.path, Some(model::PathMatch::Prefix(_)));
    said.matches.as_ref().is_some_and(|rows| rows.as_slice().iter().all(is_prefix))
}
