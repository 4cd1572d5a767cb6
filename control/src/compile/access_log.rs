//! The access log: one target, and somebody who writes to it.

use std::path::Path;

use super::Compile;
use crate::parse::Pointer;

impl Compile<'_> {
    /// After the virtual servers.
    pub(super) fn access_log(&mut self) {
        let place = Pointer::from("/telemetry/access_log");
        let Some(target) = &self.model.telemetry.access_log else {
            self.logged_nowhere();
            return;
        };
        if target.file.is_some() == target.syslog.is_some() && !self.lost_in(place.as_str()) {
            self.error(place.clone(), "expected either file or syslog");
        }
        if let Some(file) = &target.file
            && !Path::new(file).is_absolute()
        {
            self.error(
                place.child("file"),
                "expected a path from the root on, such as /var/log/sluice/access",
            );
        }
    }

    /// A missing target is a warning: traffic goes before lines about it.
    fn logged_nowhere(&mut self) {
        if self.lost_in("/telemetry") {
            return;
        }
        let servers = self.parts.virtuals.iter();
        let logging = servers.filter(|server| server.proxy.as_ref().is_some_and(|proxy| proxy.access_log));
        let places: Vec<_> =
            logging.map(|server| Pointer::root().child("virtual_servers").child(&server.name)).collect();
        for place in places {
            self.warn(place, "nothing is written to the access log: there is no telemetry.access_log");
        }
    }
}
