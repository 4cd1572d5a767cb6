//! Health monitors.

use super::{Compile, pointer};
use crate::model::{Monitor, MonitorType};
use crate::parse::Pointer;

impl Compile<'_> {
    pub(super) fn monitors(&mut self) {
        let model = self.model;
        for (name, monitor) in &model.monitors {
            let path = pointer("monitors", name);
            self.monitor(&path, monitor);
            self.warn(path, "health monitors are not run in this version: every enabled member counts as up");
        }
    }

    fn monitor(&mut self, path: &Pointer, monitor: &Monitor) {
        if monitor.interval.as_ms() == 0 {
            self.error(path.child("interval"), "expected more than 0s");
        }
        if monitor.timeout <= monitor.interval {
            let interval = monitor.interval;
            self.error(
                path.child("timeout"),
                format!("expected more than the interval, which is {interval}"),
            );
        }
        let silent = matches!(monitor.kind, MonitorType::Icmp | MonitorType::TcpHalfOpen);
        for (field, value) in [("send", &monitor.send), ("receive", &monitor.receive)] {
            if silent && value.is_some() {
                self.error(
                    path.child(field),
                    "expected nothing here: this type of monitor exchanges no text",
                );
            }
        }
    }
}
