//! PROXY headers: who is behind a client's connection, and what members are told of it.

use super::Proxy;
use crate::config::proxy::ProxyVersion;
use crate::flow::key::FlowKey;
use crate::pipeline::Pipeline;
use crate::proxy_protocol::{self, Endpoint, Origin, Tlvs, Transport, V2_MAX, write_v1, write_v2};
use crate::tcp::Engine;
use crate::verdict::DropReason;

/// What was read of a header.
enum Read {
    /// More is to come.
    Wait,
    /// It is none, or none that is allowed.
    Refused,
    /// Who is behind it, where it says so, and the fields of version 2.
    Done(Option<(Endpoint, Endpoint)>, Option<Box<[u8]>>),
}

impl Pipeline {
    /// Reads the header that the connection must begin with.
    pub(crate) fn read_header(&mut self, proxy: &mut Proxy) {
        let Some(client) = proxy.client else { return };
        let mut read = Read::Wait;
        self.proxies.engine.read(client, |bytes| {
            let taken;
            (read, taken) = parse(bytes);
            taken
        });
        let engine = &self.proxies.engine;
        let is_over = engine.state(client).is_over() || engine.has_peer_closed(client);
        match read {
            Read::Wait if is_over => self.cut(proxy),
            Read::Wait => {}
            Read::Refused => {
                self.count_drop(DropReason::ProxyHeader, proxy.virtual_id);
                self.cut(proxy);
            }
            Read::Done(ends, tlvs) => {
                if let Some((source, destination)) = ends {
                    proxy.origin = FlowKey {
                        src: source.address,
                        src_port: source.port,
                        dst: destination.address,
                        dst_port: destination.port,
                        ..proxy.origin
                    };
                }
                proxy.tlvs = tlvs;
                proxy.layer = self.first_layer(&proxy.profile);
            }
        }
    }

    /// Says to the member who is behind the connection, before anything else. There is room: nothing was sent yet.
    pub(crate) fn send_header(&mut self, proxy: &Proxy) {
        let (Some(version), Some(server)) = (proxy.profile.send_proxy, proxy.server) else { return };
        let end = |address, port| Endpoint { address, port };
        let origin = Origin::Ip {
            transport: Transport::Stream,
            source: end(proxy.origin.src, proxy.origin.src_port),
            destination: end(proxy.origin.dst, proxy.origin.dst_port),
        };
        let mut bytes = [0; V2_MAX];
        let tlvs = proxy.tlvs.as_deref().and_then(|bytes| Tlvs::read(bytes).ok()).unwrap_or_default();
        let written = match version {
            ProxyVersion::V1 => write_v1(&origin, &mut bytes),
            ProxyVersion::V2 { crc } => write_v2(&origin, tlvs, crc, &mut bytes)
                .or_else(|_| write_v2(&origin, Tlvs::default(), crc, &mut bytes)),
        };
        if let Ok(len) = written {
            self.proxies.engine.send(server, &bytes[..len]);
        }
    }
}

fn parse(bytes: &[u8]) -> (Read, usize) {
    let header = match proxy_protocol::parse(bytes) {
        Ok(None) => return (Read::Wait, 0),
        Err(_) => return (Read::Refused, 0),
        Ok(Some(header)) => header,
    };
    let ends = match header.origin {
        Origin::Ip { source, destination, .. } => Some((source, destination)),
        Origin::Local | Origin::Unknown | Origin::Unix { .. } => None,
    };
    let tlvs = header.tlvs.as_bytes();
    let tlvs = (!tlvs.is_empty()).then(|| tlvs.into());
    (Read::Done(ends, tlvs), header.len)
}
