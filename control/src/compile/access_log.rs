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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use sluice_dataplane::config::proxy::ProxyProfile;
    use sluice_dataplane::config::snapshot::Virtual;

    use super::*;
    use crate::check::{Against, check};
    use crate::parse::{Format, read};

    const CONFIG: &str = r#"version: 1
ports: {net: {driver: af_packet, interface: net1}}
self_ips: {self4: {address: 192.0.2.10/24, port: net}}
"#;

    /// The places of warnings, with one virtual server that is logged and one that is not.
    fn warned(telemetry: &str) -> Vec<String> {
        let text = format!("{CONFIG}telemetry: {telemetry}\n");
        let candidate = check(&read(&text, Format::Yaml).unwrap(), &Against::NOTHING).unwrap();
        let removed = BTreeSet::new();
        let mut compile = Compile::new(&candidate.model, &candidate.book, &removed);
        for (name, access_log) in [("shop/web", true), ("quiet", false)] {
            let proxy = Some(Arc::new(ProxyProfile { access_log, ..ProxyProfile::default() }));
            compile.parts.virtuals.push(Virtual { name: name.into(), proxy, ..Virtual::default() });
        }
        compile.access_log();
        assert!(compile.errors.is_empty());
        compile.warnings.iter().map(|warning| warning.path.to_string()).collect()
    }

    #[test]
    fn an_access_log_without_a_target_is_a_warning() {
        assert_eq!(warned("{}"), ["/virtual_servers/shop~1web"]);
        assert_eq!(warned("{access_log: {file: /var/log/sluice/access}}"), [""; 0]);
    }
}
