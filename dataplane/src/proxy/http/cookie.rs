//! Persistence by cookie: the member that a request names, and the cookie that names it in a response.

use std::sync::Arc;

use super::exchange::Exchange;
use crate::address::{Address, Prefix};
use crate::config::proxy::{CookieMethod, CookiePersistence, HttpProfile};
use crate::config::snapshot::{Member, Pool};
use crate::http::EditError;
use crate::persist::cookie;
use crate::persist::select::{Chooser, Chosen};
use crate::pipeline::Pipeline;
use crate::pool::MemberState;
use crate::proxy::Proxy;
use crate::select::Target;

impl Pipeline {
    /// The member that the request's cookie names, where it is one of its pool that takes persisted requests; a unit of
    /// its limits is taken.
    pub(crate) fn target_of_cookie(&mut self, proxy: &Proxy, exchange: &Exchange) -> Option<Target> {
        let settings = proxy.profile.http.as_ref()?.cookie.as_ref()?;
        let snapshot = Arc::clone(&self.snapshot);
        let pool = snapshot.pool(exchange.pool?)?;
        let value = cookie::value_for(&exchange.request, settings, &pool.name)?;
        let member = match settings.method {
            CookieMethod::Insert | CookieMethod::Passive => {
                let (address, port) = cookie::decode(value)?;
                let is_it = |member: &&Member| member.address == address && member.port == port;
                pool.members.iter().filter(|member| self.takes_persisted(proxy, member)).find(is_it)?
            }
            CookieMethod::Hash => {
                let Chooser { balancer, view, .. } = self.chooser(pool.id, &snapshot, &proxy.failed);
                balancer.pick_by_hash(pool, &view, Prefix::host(digest(value)), true).ok()?
            }
        };
        self.admit_to(Chosen { member, overrides_limit: false }).ok()?;
        let port = if member.port == 0 { proxy.origin.dst_port } else { member.port };
        Some(Target { member_id: member.id, address: member.address, port })
    }

    /// tmsh: a disabled member takes persisted requests, one that is offline none.
    fn takes_persisted(&self, proxy: &Proxy, member: &Member) -> bool {
        self.members.of(member.id) != MemberState::Offline && !proxy.failed.contains(&member.id)
    }

    /// Names the member in the response, where the operator wants it and the request did not name it.
    pub(crate) fn send_cookie(
        &self,
        proxy: &Proxy,
        settings: &HttpProfile,
        exchange: &mut Exchange,
    ) -> Result<(), EditError> {
        let Some(settings) = settings.cookie.as_ref().filter(|cookie| cookie.method == CookieMethod::Insert)
        else {
            return Ok(());
        };
        let Some(member) = proxy.member else { return Ok(()) };
        let Some(pool) = self.snapshot.pool(member.pool) else { return Ok(()) };
        if !settings.always_send && is_named(settings, exchange, pool, (member.address, member.port)) {
            return Ok(());
        }
        cookie::set_cookie(&mut exchange.response, settings, &pool.name, (member.address, member.port))
    }
}

fn is_named(settings: &CookiePersistence, exchange: &Exchange, pool: &Pool, member: (Address, u16)) -> bool {
    let value = cookie::value_for(&exchange.request, settings, &pool.name);
    value.and_then(cookie::decode) == Some(member)
}

/// A value as an address of nobody's, for the hash that members are chosen by (FNV-1a, twice).
fn digest(value: &[u8]) -> Address {
    let fold = |basis: u64| {
        value.iter().fold(basis, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    };
    Address { high: fold(0xcbf2_9ce4_8422_2325), low: fold(0x8422_2325_cbf2_9ce4) }
}
