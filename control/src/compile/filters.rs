//! Filters of a full proxy.

use std::sync::Arc;

use sluice_dataplane::config::ids::VirtualId;
use sluice_dataplane::filter as plane;
use sluice_dataplane::http::{HttpLimits, Scheme};

use super::{Compile, legal};
use crate::model::filters::{
    Cors, Filter, FixedResponse, HeaderEdits, Mirror, PathChange, RateBy, RateLimit, Redirect, Rewrite,
    UrlScheme,
};
use crate::model::{Number, VirtualServer};
use crate::parse::Pointer;

/// Where filters stand.
pub(super) struct Site<'a> {
    /// The virtual server's place.
    pub(super) path: &'a Pointer,
    /// The virtual server.
    pub(super) server: &'a VirtualServer,
    /// Its sizes, and how it reads paths.
    pub(super) limits: HttpLimits,
    /// Every request that comes here has matched a prefix.
    pub(super) prefix: bool,
    id: VirtualId,
    /// Rate limits so far.
    rate_limits: u32,
}

impl<'a> Site<'a> {
    /// The filters of the virtual server itself.
    pub(super) fn new(
        path: &'a Pointer,
        server: &'a VirtualServer,
        id: VirtualId,
        limits: HttpLimits,
    ) -> Self {
        Self { path, server, limits, prefix: false, id, rate_limits: 0 }
    }

    /// A number that no other rate limit has, and that stays as long as the virtual server's rate limits do.
    fn rate_id(&mut self) -> Option<u32> {
        let place = (self.rate_limits < RATE_LIMITS_MAX).then_some(self.rate_limits)?;
        self.rate_limits += 1;
        Some((self.id.0 << RATE_BITS) | place)
    }
}

impl Compile<'_> {
    pub(super) fn filters(
        &mut self,
        list: &Pointer,
        filters: &[Filter],
        site: &mut Site<'_>,
    ) -> Vec<plane::Filter> {
        let mut compiled = Vec::with_capacity(filters.len());
        for (index, filter) in filters.iter().enumerate() {
            let place = self.place_in(list, index);
            compiled.extend(self.filter(&place, filter, site));
        }
        compiled
    }

    fn filter(&mut self, place: &Pointer, filter: &Filter, site: &mut Site<'_>) -> Option<plane::Filter> {
        let at = |kind: &str| place.child(kind);
        Some(match filter {
            Filter::RequestHeaders(said) => {
                plane::Filter::RequestHeaders(self.header_edits(&at("request_headers"), said))
            }
            Filter::ResponseHeaders(said) => {
                plane::Filter::ResponseHeaders(self.header_edits(&at("response_headers"), said))
            }
            Filter::Forwarded(said) => plane::Filter::Forwarded(plane::Forwarded {
                x_forwarded: said.x_forwarded,
                rfc7239: said.rfc7239,
                trust_client: said.trust_client,
            }),
            Filter::Redirect(said) => plane::Filter::Redirect(self.redirect(&at("redirect"), said, site)),
            Filter::Rewrite(said) => plane::Filter::UrlRewrite(self.rewrite(&at("rewrite"), said, site)),
            Filter::FixedResponse(said) => {
                plane::Filter::FixedResponse(self.fixed_response(&at("fixed_response"), said))
            }
            Filter::Mirror(said) => plane::Filter::Mirror(self.mirror(&at("mirror"), said, site)?),
            Filter::Cors(said) => plane::Filter::Cors(self.cors(&at("cors"), said)),
            Filter::RateLimit(said) => {
                plane::Filter::RateLimit(self.rate_limit(&at("rate_limit"), said, site)?)
            }
        })
    }

    fn header_edits(&mut self, path: &Pointer, said: &HeaderEdits) -> plane::HeaderEdits {
        for (field, values) in [("set", &said.set), ("add", &said.add)] {
            for (name, value) in values {
                let legal = legal::field_name(name).and_then(|()| legal::field_value(value));
                if let Err(why) = legal {
                    self.error(path.child(field).child(name), why);
                }
            }
        }
        self.field_names(&path.child("remove"), &said.remove, false);
        if (said.set.is_empty() && said.add.is_empty() && said.remove.is_empty())
            && !self.lost_in(path.as_str())
        {
            self.error(path.clone(), "expected at least one of set, add and remove");
        }
        let pair = |(name, value): (&String, &String)| (name.as_str().into(), value.as_str().into());
        plane::HeaderEdits {
            set: said.set.iter().map(pair).collect(),
            add: said.add.iter().map(pair).collect(),
            remove: shared(&said.remove),
        }
    }

    /// Reports what is no field name; `*` is one where `any` is.
    fn field_names(&mut self, list: &Pointer, names: &[String], any: bool) {
        for (index, name) in names.iter().enumerate() {
            if let Err(why) = legal::field_name(name)
                && !(any && name == "*")
            {
                let place = self.place_in(list, index);
                self.error(place, why);
            }
        }
    }

    fn redirect(&mut self, path: &Pointer, said: &Redirect, site: &Site<'_>) -> plane::Redirect {
        let status = said.status.as_u16();
        if !matches!(status, 301 | 302 | 303 | 307 | 308) {
            self.error(path.child("status"), format!("expected 301, 302, 303, 307 or 308; found {status}"));
        }
        let moves =
            said.scheme.is_some() || said.host.is_some() || said.port.is_some() || said.path.is_some();
        if !moves && !self.lost_in(path.as_str()) {
            let why = "expected a scheme, host, port or path: clients would be sent to where they are";
            self.error(path.clone(), why);
        }
        plane::Redirect {
            scheme: said.scheme.map(|scheme| match scheme {
                UrlScheme::Http => Scheme::Http,
                UrlScheme::Https => Scheme::Https,
            }),
            host: self.url_host(path, said.host.as_deref()),
            port: said.port.map(Number::as_u16),
            path: self.path_change(path, said.path.as_ref(), site),
            status,
        }
    }

    fn rewrite(&mut self, path: &Pointer, said: &Rewrite, site: &Site<'_>) -> plane::UrlRewrite {
        if said.host.is_none() && said.path.is_none() && !self.lost_in(path.as_str()) {
            self.error(path.clone(), "expected a host or a path");
        }
        plane::UrlRewrite {
            host: self.url_host(path, said.host.as_deref()),
            path: self.path_change(path, said.path.as_ref(), site),
        }
    }

    fn url_host(&mut self, path: &Pointer, host: Option<&str>) -> Option<Arc<str>> {
        let host = host?;
        if !legal::is_host(host) {
            let why = format!("expected a host without a port, such as www.example.com; found \"{host}\"");
            self.error(path.child("host"), why);
        }
        Some(host.into())
    }

    fn path_change(
        &mut self,
        path: &Pointer,
        said: Option<&PathChange>,
        site: &Site<'_>,
    ) -> Option<plane::PathChange> {
        let place = path.child("path");
        let (kind, text) = match said? {
            PathChange::Full(text) => ("full", text),
            PathChange::Prefix(text) => ("prefix", text),
        };
        if let Err(why) = legal::path(text, &site.limits) {
            self.error(place.child(kind), why);
        }
        if kind == "full" {
            return Some(plane::PathChange::Full(text.as_str().into()));
        }
        if !site.prefix {
            let why = "expected a route that matches a prefix (match: {path: {prefix: /…}}) in every row";
            self.error(place.child(kind), why);
        }
        Some(plane::PathChange::Prefix(text.as_str().into()))
    }

    fn fixed_response(&mut self, path: &Pointer, said: &FixedResponse) -> plane::FixedResponse {
        let status = said.status.as_u16();
        if let Err(why) = legal::field_value(&said.content_type) {
            self.error(path.child("content_type"), why);
        }
        if said.body.len() > BODY_MAX {
            let why = format!("expected a body of at most 64KiB; this has {} bytes", said.body.len());
            self.error(path.child("body"), why);
        } else if matches!(status, 204 | 205 | 304) && !said.body.is_empty() {
            self.error(path.child("body"), format!("expected no body with status {status}"));
        }
        plane::FixedResponse {
            status,
            content_type: said.content_type.as_str().into(),
            body: said.body.as_bytes().into(),
        }
    }

    fn mirror(&mut self, path: &Pointer, said: &Mirror, site: &Site<'_>) -> Option<plane::Mirror> {
        let pool = self.pool_named(path.child("pool"), site.path, site.server, &said.pool)?;
        Some(plane::Mirror { pool, per_mille: said.percent.per_mille() })
    }

    fn cors(&mut self, path: &Pointer, said: &Cors) -> plane::Cors {
        let origins = path.child("allow_origins");
        if said.allow_origins.is_empty() && !self.lost_in(origins.as_str()) {
            self.error(origins.clone(), "expected at least one origin, or \"*\" for all");
        }
        for (index, origin) in said.allow_origins.iter().enumerate() {
            if !is_origin(origin) {
                let place = self.place_in(&origins, index);
                let why =
                    format!("expected \"*\" or an origin such as https://shop.example; found \"{origin}\"");
                self.error(place, why);
            }
        }
        for (index, method) in said.allow_methods.iter().enumerate() {
            if !legal::is_token(method) {
                let place = self.place_in(&path.child("allow_methods"), index);
                self.error(place, format!("expected \"*\" or a method such as PUT; found \"{method}\""));
            }
        }
        self.field_names(&path.child("allow_headers"), &said.allow_headers, true);
        self.field_names(&path.child("expose_headers"), &said.expose_headers, true);
        plane::Cors {
            allow_origins: shared(&said.allow_origins),
            allow_methods: shared(&said.allow_methods),
            allow_headers: shared(&said.allow_headers),
            expose_headers: shared(&said.expose_headers),
            allow_credentials: said.allow_credentials,
            max_age_s: self.seconds(path.child("max_age"), said.max_age),
        }
    }

    fn rate_limit(
        &mut self,
        path: &Pointer,
        said: &RateLimit,
        site: &mut Site<'_>,
    ) -> Option<plane::RateLimit> {
        self.not_zero(path, "period", Some(said.period));
        let by = match &said.by {
            RateBy::ClientAddress => {
                let (mask_v4, mask_v6) = said.mask.unwrap_or_default().bits_or((32, 128));
                plane::RateKey::Address { mask_v4, mask_v6 }
            }
            RateBy::Header(name) => {
                if let Err(why) = legal::field_name(name) {
                    self.error(path.child("by").child("header"), why);
                }
                if said.mask.is_some() {
                    self.error(path.child("mask"), "expected no mask: requests are counted by a field");
                }
                plane::RateKey::Header(name.as_str().into())
            }
        };
        let Some(id) = site.rate_id() else {
            self.error(path.clone(), format!("expected at most {RATE_LIMITS_MAX} in one virtual server"));
            return None;
        };
        let burst = said.burst.unwrap_or(said.requests).as_u32();
        Some(plane::RateLimit {
            id,
            by,
            requests: said.requests.as_u32(),
            period_ms: said.period.as_ms(),
            burst,
        })
    }
}

fn shared(texts: &[String]) -> Vec<Arc<str>> {
    texts.iter().map(|text| text.as_str().into()).collect()
}

/// `*`, or a scheme, a host that may begin with `*.`, and perhaps a port.
fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return text == "*" };
    let authority = authority.strip_prefix("*.").unwrap_or(authority);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().unwrap_or(0)),
        _ => (authority, 1_u16),
    };
    matches!(scheme, "http" | "https") && legal::is_host(host) && port > 0
}

/// Bytes of a fixed response's body at most.
const BODY_MAX: usize = 64 << 10;
/// A rate limit's number is the virtual server's, and so many bits for its place there. Numbers of virtual servers
/// stay below a million.
const RATE_BITS: u32 = 12;
const RATE_LIMITS_MAX: u32 = 1 << RATE_BITS;
