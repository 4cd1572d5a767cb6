//! Full proxies: what hangs on a virtual server of type standard, and on no other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use sluice_dataplane::address::Prefix;
use sluice_dataplane::config::ids::VirtualId;
use sluice_dataplane::config::proxy::{ProxyProfile, ProxyVersion, Reuse, TcpProfile};

use super::Compile;
use crate::model::{
    ConnectionReuse, OneOrMany, Protocol, ProxyProtocol, SendProxy, Span, Tcp, TcpSide, VirtualServer,
    VirtualType,
};
use crate::parse::Pointer;

impl Compile<'_> {
    /// How `server` proxies connections; `None` unless it is of type standard.
    pub(super) fn proxy(
        &mut self,
        path: &Pointer,
        server: &VirtualServer,
        id: VirtualId,
    ) -> Option<Arc<ProxyProfile>> {
        if server.kind != VirtualType::Standard {
            self.no_proxy(path, server);
            return None;
        }
        let (client_tcp, server_tcp) = self.tcp(&path.child("tcp"), server.tcp.as_deref());
        let (accept_proxy_from, send_proxy) = self.proxy_protocol(path, server.proxy_protocol.as_deref());
        self.verified_accept(path, server);
        Some(Arc::new(ProxyProfile {
            client_tcp,
            server_tcp,
            verified_accept: server.verified_accept,
            accept_proxy_from,
            send_proxy,
            http: self.http(path, server, id),
            access_log: server.access_log,
        }))
    }

    /// Reports what only a full proxy has.
    fn no_proxy(&mut self, path: &Pointer, server: &VirtualServer) {
        if self.removed.contains(&path.child("type")) {
            return;
        }
        let there = [
            ("tcp", server.tcp.is_some()),
            ("verified_accept", server.verified_accept),
            ("access_log", server.access_log),
            ("http", server.http.is_some()),
            ("filters", !server.filters.is_empty()),
            ("routes", !server.routes.is_empty()),
            ("proxy_protocol", server.proxy_protocol.is_some()),
            ("connection_reuse", server.connection_reuse.is_some()),
        ];
        for (field, _) in there.into_iter().filter(|(_, is_there)| *is_there) {
            let why = format!("expected no {field}: it is for virtual servers of type standard");
            self.error(path.child(field), why);
        }
    }

    /// A full proxy takes TCP only.
    pub(super) fn tcp_only(&mut self, path: &Pointer, server: &VirtualServer) {
        let place = path.child("protocol");
        if server.protocol != Protocol::Tcp && !self.removed.contains(&place) {
            self.error(place, "expected tcp, all that a standard virtual server takes");
        }
    }

    /// Nobody knows a request's route before the handshake.
    fn verified_accept(&mut self, path: &Pointer, server: &VirtualServer) {
        let lost = self.removed.contains(&path.child("pool"));
        if server.verified_accept && server.http.is_some() && server.pool.is_none() && !lost {
            let why = "expected a pool, too: the member is connected before there is a request to be routed";
            self.error(path.child("verified_accept"), why);
        }
    }

    fn tcp(&mut self, path: &Pointer, said: Option<&Tcp>) -> (TcpProfile, TcpProfile) {
        let Some(said) = said else { return Default::default() };
        let (client, server) = (said.client.as_ref(), said.server.as_ref());
        self.tcp_side(path, &said.both());
        for (word, side) in [("client", client), ("server", server)] {
            if let Some(side) = side {
                self.tcp_side(&path.child(word), side);
            }
        }
        if client.is_some_and(|client| client.connect_timeout.is_some()) {
            let why = "expected no connect_timeout: clients connect to us; write it under server";
            self.error(path.child("client").child("connect_timeout"), why);
        }
        (side(said, client), side(said, server))
    }

    fn tcp_side(&mut self, path: &Pointer, side: &TcpSide) {
        for (field, span) in
            [("fin_wait_timeout", side.fin_wait_timeout), ("connect_timeout", side.connect_timeout)]
        {
            self.not_zero(path, field, span);
        }
        if side.ack_delay.is_some_and(|delay| delay.as_ms() >= ACK_DELAY_END_MS) {
            let why = "expected less than 500ms: later acknowledgements make peers send again (RFC 9293)";
            self.error(path.child("ack_delay"), why);
        }
    }

    /// Reports a time of zero where that would end things at once.
    pub(super) fn not_zero(&mut self, path: &Pointer, field: &str, span: Option<Span>) {
        if span.is_some_and(|span| span.as_ms() == 0) {
            self.error(path.child(field), "expected more than 0s");
        }
    }

    fn proxy_protocol(
        &mut self,
        path: &Pointer,
        said: Option<&ProxyProtocol>,
    ) -> (Vec<Prefix>, Option<ProxyVersion>) {
        let Some(said) = said else { return (Vec::new(), None) };
        let path = path.child("proxy_protocol");
        let lost = self.lost_in(path.as_str());
        if said.crc && said.send != Some(SendProxy::V2) && !lost {
            self.error(path.child("crc"), "expected send: v2, too: only its headers have a checksum");
        }
        if said.from.is_some() && !said.accept && !lost {
            self.error(path.child("from"), "expected accept: true, too: without it no header is read");
        }
        if said.from.as_ref().is_some_and(|from| from.as_slice().is_empty()) && !lost {
            self.error(path.child("from"), "expected at least one network; leave it out for everywhere");
        }
        let sent = said.send.map(|version| match version {
            SendProxy::V1 => ProxyVersion::V1,
            SendProxy::V2 => ProxyVersion::V2 { crc: said.crc },
        });
        (if said.accept { accepted(said) } else { Vec::new() }, sent)
    }

    /// What becomes of connections to members between two requests.
    pub(super) fn reuse(&mut self, path: &Pointer, said: Option<&ConnectionReuse>) -> Reuse {
        let said = match said {
            None => return Reuse::default(),
            Some(ConnectionReuse::Off) => return Reuse { enabled: false, ..Reuse::default() },
            Some(ConnectionReuse::On(said)) => said,
        };
        let path = path.child("connection_reuse");
        self.not_zero(&path, "max_age", Some(said.max_age));
        self.not_zero(&path, "idle_timeout", Some(said.idle_timeout));
        let (source_mask_v4, source_mask_v6) = said.source_mask.bits_or((0, 0));
        Reuse {
            enabled: true,
            source_mask_v4,
            source_mask_v6,
            max_size: said.max_size.as_u32(),
            max_reuse: said.max_reuse.as_u32(),
            max_age_ms: said.max_age.as_ms(),
            idle_ms: said.idle_timeout.as_ms(),
        }
    }
}

fn accepted(said: &ProxyProtocol) -> Vec<Prefix> {
    match &said.from {
        Some(from) => from.as_slice().iter().map(|network| network.0).collect(),
        None => vec![
            Prefix::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            Prefix::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
        ],
    }
}

/// One side's own words, then those for both, then the defaults.
fn side(said: &Tcp, own: Option<&TcpSide>) -> TcpProfile {
    let (both, own, plain) = (said.both(), own.cloned().unwrap_or_default(), TcpProfile::default());
    let ms = |own: Option<Span>, both: Option<Span>, plain: u32| own.or(both).map_or(plain, Span::as_ms);
    TcpProfile {
        nagle: own.nagle.or(both.nagle).unwrap_or(plain.nagle),
        keep_alive_ms: ms(own.keep_alive_interval, both.keep_alive_interval, plain.keep_alive_ms),
        ack_delay_ms: ms(own.ack_delay, both.ack_delay, plain.ack_delay_ms),
        fin_wait_ms: ms(own.fin_wait_timeout, both.fin_wait_timeout, plain.fin_wait_ms),
        connect_ms: ms(own.connect_timeout, both.connect_timeout, plain.connect_ms),
    }
}

/// Whether a virtual server's connections may be without any pool: everything is answered here or goes by a route.
pub(super) fn needs_no_pool(server: &VirtualServer) -> bool {
    let answered = server.filters.iter().any(crate::model::Filter::answers);
    server.http.is_some() && (answered || !server.routes.is_empty())
}

/// True when `matches` is a list.
pub(super) fn is_list<T>(matches: &OneOrMany<T>) -> bool {
    matches!(matches, OneOrMany::Many(_))
}

/// An acknowledgement must come earlier (RFC 9293 section 3.8.6.3).
const ACK_DELAY_END_MS: u32 = 500;
