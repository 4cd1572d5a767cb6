//! Statistics: counters summed over workers into plain values, for the socket and for metrics.

pub mod nodes;
pub mod persistence;
pub mod rows;
pub mod sums;
pub mod tables;

use std::sync::Arc;

use sluice_dataplane::config::ids::{MemberId, PORTS_MAX, PortId};
use sluice_dataplane::counters::Counter;
use sluice_dataplane::runtime::WorkerHandle;
use sluice_dataplane::verdict::DropReason;

use crate::model::{Member, Name, Pool, SnatChoice};
use crate::process::{Process, View};
use rows::{
    DropStats, Drops, MemberStats, PoolStats, PortStats, SnatPoolStats, SnatStats, TableStats, VirtualDrops,
    VirtualServerStats, WorkerDrops, WorkerStats,
};
use sums::{ConnectionsSum, MemberSums, TrafficSum, VirtualSums};
pub use tables::{FlowFilter, endpoint};

impl Process {
    /// Every virtual server.
    pub fn virtual_servers(&self) -> Vec<VirtualServerStats> {
        let view = self.view();
        let stats = |(name, server): (&Name, &Arc<crate::model::VirtualServer>)| {
            let sums = self.virtual_sums(&view, name.as_str());
            let pool = server.pool.as_ref().map(|pool| self.pool_availability(&view, pool));
            let (of_pool, members_available) = pool.unzip();
            VirtualServerStats {
                name: name.to_string(),
                destination: server.destination.as_slice().iter().map(ToString::to_string).collect(),
                protocol: server.protocol,
                kind: server.kind,
                enabled: server.enabled,
                availability: Self::virtual_availability(server, sums.connections.current, of_pool),
                pool: server.pool.as_ref().map(ToString::to_string),
                members_available,
                connections: sums.connections,
                clientside: sums.clientside,
                serverside: sums.serverside,
                drops: named(&sums.drops),
                http: server.http.is_some().then_some(sums.http),
            }
        };
        view.model.virtual_servers.iter().map(stats).collect()
    }

    fn virtual_sums(&self, view: &View, name: &str) -> VirtualSums {
        let id = view.book.virtual_id(name);
        let sums = VirtualSums::of(self.workers(), id);
        match view.baselines.virtuals.get(&id) {
            Some(base) => sums.minus(base),
            None => sums,
        }
    }

    fn member_sums(&self, view: &View, id: MemberId) -> MemberSums {
        let sums = MemberSums::of(self.workers(), id);
        view.baselines.members.get(&id).map_or(sums, |base| sums.minus(base))
    }

    /// Every pool.
    pub fn pools(&self) -> Vec<PoolStats> {
        let view = self.view();
        let stats = |(name, pool): (&Name, &Arc<Pool>)| {
            let (mut connections, mut serverside) = (ConnectionsSum::default(), TrafficSum::default());
            for member in &pool.members {
                let sums = self.member_sums(&view, view.book.member_id(name, member));
                connections.plus(&sums.connections);
                serverside.plus(&sums.serverside);
            }
            let (availability, members_available) = self.pool_availability(&view, name);
            PoolStats {
                name: name.to_string(),
                availability,
                load_balancing: pool.load_balancing,
                members: pool.members.len(),
                members_available,
                monitors: pool.monitors.iter().map(ToString::to_string).collect(),
                connections,
                serverside,
            }
        };
        view.model.pools.iter().map(stats).collect()
    }

    /// Every member of every pool.
    pub fn members(&self) -> Vec<MemberStats> {
        let view = self.view();
        let all = view.model.pools.iter();
        let all = all.flat_map(|of| of.1.members.iter().map(move |member| (of, member)));
        let stats = |(of, member): ((&Name, &Arc<Pool>), &Member)| {
            let pool = of.0;
            let id = view.book.member_id(pool, member);
            let sums = self.member_sums(&view, id);
            let state = self.member_state(id);
            let said = view.said.contains_key(&(pool.clone(), member.address.0, member.port.0));
            MemberStats {
                pool: pool.to_string(),
                member: endpoint(member.address, member.port.0),
                address: member.address.to_string(),
                port: member.port.0,
                availability: self.member_availability(&view, (of.0, of.1), member),
                state,
                state_from: match (said, member.state) {
                    (true, _) => "runtime",
                    (false, Some(_)) => "config",
                    (false, None) => "default",
                },
                ratio: member.ratio.get(),
                priority_group: member.priority_group.get(),
                connection_limit: member.connection_limit.get(),
                connections: sums.connections,
                serverside: sums.serverside,
            }
        };
        all.map(stats).collect()
    }

    /// Every port.
    pub fn port_stats(&self) -> Vec<PortStats> {
        let stats = |(number, info): (usize, &sluice_dataplane::port::PortInfo)| {
            let id = PortId(number as u8);
            let mut traffic = TrafficSum::default();
            self.workers().iter().for_each(|worker| traffic.add(&worker.counters().of_port(id).frames));
            let sum = |pick: fn(&sluice_dataplane::counters::PortCounters) -> &Counter| -> u64 {
                self.workers().iter().map(|worker| pick(worker.counters().of_port(id)).load()).sum()
            };
            let (steering, steering_reason) =
                info.steering_after(sum(|port| &port.hash_right), sum(|port| &port.hash_wrong));
            PortStats {
                name: info.name.clone(),
                driver: info.driver,
                device: info.device.clone(),
                mac: info.mac.to_string(),
                mtu: self.mtu_now(id).unwrap_or(info.mtu),
                link: if sum(|port| &port.link_up) > 0 { "up" } else { "down" },
                queues: info.queues,
                offloads: info.offloads.clone(),
                steering: steering.name(),
                steering_reason,
                traffic,
                rx_missed: sum(|port| &port.rx_missed),
                rx_errors: sum(|port| &port.rx_errors),
                rx_no_memory: sum(|port| &port.rx_no_memory),
                tx_errors: sum(|port| &port.tx_errors),
            }
        };
        self.ports().iter().enumerate().map(stats).collect()
    }

    /// What the driver has noticed of a port's MTU since it was opened.
    fn mtu_now(&self, port: PortId) -> Option<u16> {
        let said = self.workers().iter().map(|worker| worker.counters().of_port(port).mtu.load());
        said.filter(|&mtu| mtu != 0).min().and_then(|mtu| u16::try_from(mtu).ok())
    }

    /// Every worker.
    pub fn worker_stats(&self) -> Vec<WorkerStats> {
        self.workers().iter().map(worker_stats).collect()
    }

    /// Every drop, by reason.
    pub fn drops(&self) -> DropStats {
        let view = self.view();
        let of = |worker: &WorkerHandle| {
            DropReason::ALL.iter().map(|reason| worker.counters().of_drop(*reason).load()).collect::<Vec<_>>()
        };
        let workers: Vec<_> = self.workers().iter().map(|worker| (worker.number(), of(worker))).collect();
        let total: Vec<u64> = (0..DropReason::COUNT)
            .map(|reason| workers.iter().map(|(_, drops)| drops[reason]).sum())
            .collect();
        let by_virtual = view.model.virtual_servers.keys().map(|name| VirtualDrops {
            virtual_server: name.to_string(),
            drops: named(&self.virtual_sums(&view, name.as_str()).drops),
        });
        let by_worker =
            workers.iter().map(|(worker, drops)| WorkerDrops { worker: *worker, drops: named(drops) });
        DropStats {
            total: named(&total),
            workers: by_worker.collect(),
            virtual_servers: by_virtual.collect(),
        }
    }

    /// Source address translation.
    pub async fn snat(&self) -> SnatStats {
        let addresses = self.snat_addresses().await;
        let view = self.view();
        let using = |wanted: &SnatChoice| -> Vec<String> {
            let servers = view.model.virtual_servers.iter();
            servers.filter(|(_, server)| server.snat == *wanted).map(|(name, _)| name.to_string()).collect()
        };
        let pools = view.model.snat_pools.iter().map(|(name, pool)| SnatPoolStats {
            name: name.to_string(),
            addresses: pool.addresses.iter().map(ToString::to_string).collect(),
            virtual_servers: using(&SnatChoice::Pool(name.clone())),
        });
        SnatStats {
            ports_in_use: self.workers().iter().map(|worker| worker.counters().snat_ports.load()).sum(),
            addresses,
            pools: pools.collect(),
            automap: using(&SnatChoice::Automap),
        }
    }
}

fn named(counts: &[u64]) -> Drops {
    DropReason::ALL.iter().map(|reason| reason.name()).zip(counts.iter().copied()).collect()
}

fn worker_stats(worker: &WorkerHandle) -> WorkerStats {
    let (counters, looped) = (worker.counters(), worker.counters().of_loop());
    let (turns, busy_turns) = (looped.turns.load(), looped.busy_turns.load());
    let table = |table: &sluice_dataplane::worker::TableFacts| TableStats {
        name: table.name,
        capacity: table.capacity,
        bytes: table.bytes,
        pages: table.pages,
    };
    let mut traffic = TrafficSum::default();
    (0..PORTS_MAX).for_each(|port| traffic.add(&counters.of_port(PortId(port as u8)).frames));
    WorkerStats {
        worker: worker.number(),
        core: worker.core(),
        running: !worker.is_finished(),
        generation: worker.taken(),
        turns,
        busy_turns,
        busy_percent: if turns == 0 {
            0.0
        } else {
            (busy_turns as f64 / turns as f64 * 1_000.0).round() / 10.0
        },
        sleeps: looped.sleeps.load(),
        slept_ms: looped.slept_ns.load() / 1_000_000,
        longest_turn_us: looped.longest_turn_ns.load() as f64 / 1_000.0,
        traffic,
        flows: counters.flows.load(),
        half_open: counters.half_open.load(),
        proxies: counters.proxies.load(),
        syn_cookies: counters.syn_cookies.load(),
        neighbors: counters.neighbors.load(),
        snat_ports: counters.snat_ports.load(),
        misdirected: counters.misdirected.load(),
        handed_over: counters.handed_over.load(),
        rejects_sent: counters.rejects_sent.load(),
        rejects_limited: counters.rejects_limited.load(),
        access_log_records: worker.access_log().written.load(),
        access_log_dropped: worker.access_log().dropped.load(),
        tables: worker.facts().tables.iter().map(table).collect(),
    }
}
