//! HTTP of a full proxy: sizes, times, persistence by cookie.

use sluice_dataplane::config::ids::VirtualId;
use sluice_dataplane::config::proxy as plane;
use sluice_dataplane::http::{HttpLimits, PathRules};

use super::filters::Site;
use super::{Compile, legal};
use crate::model::{CookieMethod, Http, Persistence, PersistenceType, Size, Span, VirtualServer};
use crate::parse::Pointer;

impl Compile<'_> {
    /// HTTP of a virtual server of type standard.
    pub(super) fn http(
        &mut self,
        path: &Pointer,
        server: &VirtualServer,
        id: VirtualId,
    ) -> Option<plane::HttpProfile> {
        let Some(said) = server.http.as_deref() else {
            self.no_http(path, server);
            return None;
        };
        let place = path.child("http");
        self.sizes(&place, said);
        if let Err(why) = legal::field_value(&said.server_name) {
            self.error(place.child("server_name"), why);
        }
        let limits = limits(said);
        let mut site = Site::new(path, server, id, limits);
        let filters = self.filters(&path.child("filters"), &server.filters, &mut site);
        Some(plane::HttpProfile {
            limits,
            timeouts: self.http_timeouts(&place, said),
            requests_max: said.max_requests.as_u32(),
            allow_connect: said.allow_connect,
            routes: self.http_routes(&mut site),
            filters,
            reuse: self.reuse(path, server.connection_reuse.as_deref()),
            cookie: self.cookie(path, server),
            server_name: said.server_name.as_str().into(),
        })
    }

    /// Reports what means nothing without HTTP.
    fn no_http(&mut self, path: &Pointer, server: &VirtualServer) {
        if self.removed.contains(&path.child("http")) {
            return;
        }
        let there = [
            ("filters", !server.filters.is_empty()),
            ("routes", !server.routes.is_empty()),
            ("connection_reuse", server.connection_reuse.is_some()),
        ];
        for (field, _) in there.into_iter().filter(|(_, is_there)| *is_there) {
            self.error(path.child(field), "expected http, too (http: {} is enough): this is about requests");
        }
    }

    fn sizes(&mut self, path: &Pointer, said: &Http) {
        for (field, size, least, most) in [
            ("max_request_line", said.max_request_line, Size(64), Size(64 << 10)),
            ("max_header_size", said.max_header_size, Size(256), Size(256 << 10)),
            ("max_trailer_size", said.max_trailer_size, Size(0), Size(64 << 10)),
        ] {
            self.size(path.child(field), size, least, most);
        }
    }

    /// Reports a size out of bounds.
    pub(super) fn size(&mut self, path: Pointer, size: Size, least: Size, most: Size) {
        if !(least..=most).contains(&size) {
            self.error(path, format!("expected a size from {least} to {most}; found {size}"));
        }
    }

    fn http_timeouts(&mut self, path: &Pointer, said: &Http) -> plane::HttpTimeouts {
        let mut ms = |field: &str, span: Span| {
            self.not_zero(path, field, Some(span));
            span.as_ms()
        };
        plane::HttpTimeouts {
            first_byte_ms: ms("first_byte_timeout", said.first_byte_timeout),
            head_ms: ms("header_timeout", said.header_timeout),
            body_ms: ms("body_timeout", said.body_timeout),
            response_ms: ms("response_timeout", said.response_timeout),
            keep_alive_ms: ms("keep_alive_timeout", said.keep_alive_timeout),
            max_age_ms: ms("max_connection_age", said.max_connection_age),
            tunnel_ms: ms("tunnel_timeout", said.tunnel_timeout),
            body_rate_min: said.min_body_rate.as_u32(),
        }
    }

    fn cookie(&mut self, path: &Pointer, server: &VirtualServer) -> Option<plane::CookiePersistence> {
        let said = server.persistence.as_ref().filter(|said| said.kind == PersistenceType::Cookie)?;
        let place = path.child("persistence");
        self.cookie_name(&place, said, server);
        let cookie_path = said.path.as_deref().unwrap_or("/");
        let visible = cookie_path.bytes().all(|byte| (b' '..0x7f).contains(&byte) && byte != b';');
        if !cookie_path.starts_with('/') || !visible {
            self.error(place.child("path"), "expected a path that begins with / and holds no semicolon");
        }
        Some(plane::CookiePersistence {
            method: match said.method.unwrap_or_default() {
                CookieMethod::Insert => plane::CookieMethod::Insert,
                CookieMethod::Passive => plane::CookieMethod::Passive,
                CookieMethod::Hash => plane::CookieMethod::Hash,
            },
            name: said.name.as_deref().unwrap_or_default().into(),
            max_age_s: self.seconds(place.child("expiration"), said.expiration.unwrap_or(Span::from_ms(0))),
            path: cookie_path.into(),
            http_only: said.http_only.unwrap_or(true),
            secure: said.secure.unwrap_or(false),
            always_send: said.always_send.unwrap_or(false),
        })
    }

    fn cookie_name(&mut self, place: &Pointer, said: &Persistence, server: &VirtualServer) {
        let lost = self.removed.contains(&place.child("name"));
        match &said.name {
            Some(name) if !legal::is_token(name) => {
                let why = format!(
                    "expected a cookie's name: letters, digits and !#$%&'*+-.^_`|~; found \"{name}\""
                );
                self.error(place.child("name"), why);
            }
            None if said.method == Some(CookieMethod::Hash) && !lost => {
                self.error(
                    place.child("name"),
                    "expected \"name\": which of the application's cookies is hashed",
                );
            }
            None if !lost => {
                if let Some(pool) = server.pools_asked().find(|pool| !legal::is_token(pool.as_str())) {
                    let why = format!(
                        "expected \"name\": BIGipServer{pool}, which it would be, is no cookie's name"
                    );
                    self.error(place.child("name"), why);
                }
            }
            _ => (),
        }
    }

    /// A time in whole seconds.
    pub(super) fn seconds(&mut self, path: Pointer, span: Span) -> u32 {
        if !span.as_ms().is_multiple_of(1_000) {
            self.error(path, format!("expected whole seconds; found {span}"));
        }
        span.as_ms() / 1_000
    }
}

fn limits(said: &Http) -> HttpLimits {
    let bytes = |size: Size| usize::try_from(size.0).unwrap_or(usize::MAX);
    HttpLimits {
        line: bytes(said.max_request_line),
        head: bytes(said.max_header_size),
        fields: said.max_headers.as_usize(),
        trailer: bytes(said.max_trailer_size),
        trailer_fields: said.max_trailers.as_usize(),
        body: said.max_body_size.map_or(u64::MAX, |size| size.0),
        path: PathRules { merge_slashes: said.merge_slashes, encoded_slashes: said.encoded_slashes },
    }
}
