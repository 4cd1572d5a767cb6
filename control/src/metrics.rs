//! Prometheus text. Every scrape has a recorder of its own, so what was removed is gone from the next one.

use std::fmt::Display;

use metrics::{Label, counter, gauge, with_local_recorder};
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::model::StatedMember;
use crate::process::Process;
use crate::stats::rows::Drops;
use crate::stats::sums::{ConnectionsSum, HttpSum, STATUS_CLASSES, TrafficSum};

/// The media type of [`render`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every metric as it is now.
pub fn render(process: &Process) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    with_local_recorder(&recorder, || {
        of_process(process);
        of_persistence(process);
        of_access_log(process);
        of_virtual_servers(process);
        of_pools(process);
        of_nodes(process);
        of_ports(process);
        of_workers(process);
    });
    handle.render()
}

fn label(name: &'static str, value: impl Display) -> Label {
    Label::new(name, value.to_string())
}

fn of_process(process: &Process) {
    let view = process.view();
    gauge!("sluice_info", vec![label("version", env!("CARGO_PKG_VERSION"))]).set(1);
    gauge!("sluice_uptime_seconds").set(process.uptime().as_secs_f64());
    gauge!("sluice_config_generation").set(view.snapshot.generation() as f64);
    gauge!("sluice_ready").set(u8::from(process.is_ready()));
    let limits = process.limits();
    let tables = [
        ("flows", limits.flows),
        ("half_open", limits.half_open),
        ("persistence", limits.persistence),
        ("proxies", limits.proxies),
    ];
    for (table, capacity) in tables {
        gauge!("sluice_limit", vec![label("table", table)]).set(capacity as f64);
    }
    counter!("sluice_rate_limit_keys_forgotten_total").absolute(process.rate_table().forgotten());
}

fn of_persistence(process: &Process) {
    let sums = process.persistence_sums();
    gauge!("sluice_persistence_records").set(sums.records as f64);
    counter!("sluice_persistence_hits_total").absolute(sums.hits);
    counter!("sluice_persistence_misses_total").absolute(sums.misses);
    counter!("sluice_persistence_evicted_total").absolute(sums.evicted);
}

fn of_access_log(process: &Process) {
    let counts = process.access_logs.counts();
    counter!("sluice_access_log_lines_total").absolute(counts.lines);
    counter!("sluice_access_log_lost_lines_total").absolute(counts.lost);
    counter!("sluice_access_log_errors_total").absolute(counts.errors);
}

fn of_virtual_servers(process: &Process) {
    for server in process.virtual_servers() {
        let labels = vec![label("virtual_server", &server.name)];
        connections("sluice_virtual_server", &labels, &server.connections);
        traffic("sluice_virtual_server_clientside", &labels, &server.clientside);
        traffic("sluice_virtual_server_serverside", &labels, &server.serverside);
        gauge!("sluice_virtual_server_enabled", labels.clone()).set(u8::from(server.enabled));
        drops("sluice_virtual_server_drops_total", &labels, &server.drops);
        if let Some(sums) = &server.http {
            http(&labels, sums);
        }
    }
}

fn of_pools(process: &Process) {
    for pool in process.pools() {
        let labels = vec![label("pool", &pool.name)];
        gauge!("sluice_pool_members", labels.clone()).set(pool.members as f64);
        gauge!("sluice_pool_members_available", labels).set(pool.members_available as f64);
    }
    for member in process.members() {
        let labels = vec![label("pool", &member.pool), label("member", &member.member)];
        connections("sluice_member", &labels, &member.connections);
        traffic("sluice_member_serverside", &labels, &member.serverside);
        gauge!("sluice_member_enabled", labels).set(u8::from(member.state == StatedMember::Enabled));
    }
}

fn of_nodes(process: &Process) {
    for node in process.nodes() {
        connections("sluice_node", &[label("address", &node.address)], &node.connections);
    }
}

fn of_ports(process: &Process) {
    for port in process.port_stats() {
        let labels = vec![label("port", &port.name), label("driver", port.driver)];
        traffic("sluice_port", &labels, &port.traffic);
        let steering = [labels.clone(), vec![label("steering", port.steering)]].concat();
        gauge!("sluice_port_steering", steering).set(1);
        gauge!("sluice_port_up", labels.clone()).set(u8::from(port.link == "up"));
        counter!("sluice_port_rx_missed_total", labels.clone()).absolute(port.rx_missed);
        counter!("sluice_port_rx_errors_total", labels.clone()).absolute(port.rx_errors);
        counter!("sluice_port_rx_no_memory_total", labels.clone()).absolute(port.rx_no_memory);
        counter!("sluice_port_tx_errors_total", labels).absolute(port.tx_errors);
    }
}

fn of_workers(process: &Process) {
    for worker in process.worker_stats() {
        let labels = vec![label("worker", worker.worker)];
        gauge!("sluice_worker_generation", labels.clone()).set(worker.generation as f64);
        gauge!("sluice_worker_flows", labels.clone()).set(worker.flows as f64);
        gauge!("sluice_worker_half_open_flows", labels.clone()).set(worker.half_open as f64);
        gauge!("sluice_worker_proxies", labels.clone()).set(worker.proxies as f64);
        counter!("sluice_worker_syn_cookies_total", labels.clone()).absolute(worker.syn_cookies);
        gauge!("sluice_worker_neighbors", labels.clone()).set(worker.neighbors as f64);
        gauge!("sluice_worker_snat_ports", labels.clone()).set(worker.snat_ports as f64);
        gauge!("sluice_worker_longest_turn_seconds", labels.clone()).set(worker.longest_turn_us / 1e6);
        counter!("sluice_worker_misdirected_total", labels.clone()).absolute(worker.misdirected);
        counter!("sluice_worker_handed_over_total", labels.clone()).absolute(worker.handed_over);
        counter!("sluice_worker_turns_total", labels.clone()).absolute(worker.turns);
        counter!("sluice_worker_busy_turns_total", labels.clone()).absolute(worker.busy_turns);
        counter!("sluice_worker_sleeps_total", labels.clone()).absolute(worker.sleeps);
        counter!("sluice_worker_slept_milliseconds_total", labels.clone()).absolute(worker.slept_ms);
        counter!("sluice_worker_rejects_sent_total", labels.clone()).absolute(worker.rejects_sent);
        counter!("sluice_worker_rejects_limited_total", labels.clone()).absolute(worker.rejects_limited);
        counter!("sluice_access_log_records_total", labels.clone()).absolute(worker.access_log_records);
        counter!("sluice_access_log_dropped_total", labels).absolute(worker.access_log_dropped);
    }
    for worker in process.drops().workers {
        drops("sluice_drops_total", &[label("worker", worker.worker)], &worker.drops);
    }
}

fn connections(prefix: &str, labels: &[Label], sums: &ConnectionsSum) {
    gauge!(format!("{prefix}_connections"), labels.to_vec()).set(sums.current as f64);
    counter!(format!("{prefix}_connections_total"), labels.to_vec()).absolute(sums.total);
}

fn traffic(prefix: &str, labels: &[Label], sums: &TrafficSum) {
    for (direction, packets, bytes) in
        [("in", sums.packets_in, sums.bytes_in), ("out", sums.packets_out, sums.bytes_out)]
    {
        let mut labels = labels.to_vec();
        labels.push(label("direction", direction));
        counter!(format!("{prefix}_packets_total"), labels.clone()).absolute(packets);
        counter!(format!("{prefix}_bytes_total"), labels).absolute(bytes);
    }
}

fn http(labels: &[Label], sums: &HttpSum) {
    counter!("sluice_http_requests_total", labels.to_vec()).absolute(sums.requests);
    for (class, responses) in STATUS_CLASSES.into_iter().zip(sums.responses) {
        let labels = [labels, &[label("class", class)]].concat();
        counter!("sluice_http_responses_total", labels).absolute(responses);
    }
    counter!("sluice_http_refused_total", labels.to_vec()).absolute(sums.refused);
    counter!("sluice_http_retries_total", labels.to_vec()).absolute(sums.retries);
    counter!("sluice_http_reused_total", labels.to_vec()).absolute(sums.reused);
}

/// Only reasons that occurred: there are many, and most never do.
fn drops(name: &'static str, labels: &[Label], drops: &Drops) {
    for (reason, count) in drops.iter().filter(|(_, count)| **count > 0) {
        let mut labels = labels.to_vec();
        labels.push(label("reason", reason));
        counter!(name, labels).absolute(*count);
    }
}
