//! Proxied connections as `show flows` lists them.

use super::stream::Phase;
use super::{Layer, Proxy};
use crate::config::ids::MemberId;
use crate::packet::parse::protocol;
use crate::pipeline::Pipeline;
use crate::query::{FlowInfo, FlowPage};
use crate::tcp::ConnId;

impl Pipeline {
    /// Up to `max` proxies from `place` on. Looks at no more than 16 places for each.
    pub(crate) fn proxy_page(&self, place: usize, max: usize, first: usize) -> FlowPage {
        let end = self.proxies.slots.end() as usize;
        let last = place.saturating_add(max.saturating_mul(16)).min(end);
        let mut page = FlowPage::default();
        for at in place..last {
            if page.flows.len() == max {
                page.next = Some(first + at);
                return page;
            }
            page.flows.extend(self.proxies.slots.at(at as u32).map(|proxy| self.proxy_info(proxy)));
        }
        page.next = (last < end).then_some(first + last);
        page
    }

    fn proxy_info(&self, proxy: &Proxy) -> FlowInfo {
        let key_of =
            |conn: Option<ConnId>| conn.and_then(|conn| self.proxies.ends.at(conn.index)).map(|end| end.key);
        let client = key_of(proxy.client).unwrap_or_default();
        let server = key_of(proxy.server).unwrap_or_default();
        FlowInfo {
            client: (client.src, client.src_port),
            destination: (client.dst, client.dst_port),
            source: (server.dst, server.dst_port),
            member: (server.src, server.src_port),
            protocol: protocol::TCP,
            state: state_of(&proxy.layer),
            virtual_id: proxy.virtual_id,
            member_id: proxy.member.map_or(MemberId::NONE, |member| member.id),
            idle_ms: self.now.as_ms().wrapping_sub(proxy.active.as_ms()),
            bytes: (proxy.bytes[0], proxy.bytes[1]),
        }
    }
}

fn state_of(layer: &Layer) -> &'static str {
    match layer {
        Layer::Header => "proxy-header",
        Layer::Stream(stream) => match stream.phase {
            Phase::Choosing | Phase::Connecting => "connecting",
            Phase::Passing if stream.is_tunnel => "tunnel",
            Phase::Passing => "established",
        },
        Layer::Http(http) => http.phase.name(),
        Layer::Idle(_) => "reusable",
        Layer::Verify(_) => "verifying",
        Layer::Shadow(_) => "mirror",
        Layer::Closing(_) => "closing",
    }
}
