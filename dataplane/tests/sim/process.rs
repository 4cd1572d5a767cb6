//! Between the links and the workers: into whose queue a frame comes, turns, and what the workers send.

use sluice_dataplane::config::ids::PortId;
use sluice_dataplane::flow::key::HashSeed;
use sluice_dataplane::packet::parse::{Class, Parsed, parse};

use super::link::Weather;
use super::schedule::Spread;
use super::wire::{self, Heard};
use super::{Event, Sabotage, Sim};
use crate::world::{EXTERNAL, EXTERNAL_MAC, INTERNAL, INTERNAL_MAC};

impl Sim {
    /// A frame has come to sluice: into some worker's queue.
    pub(super) fn deliver(&mut self, port: PortId, bytes: &[u8]) {
        let number = self.queue_of(port, bytes);
        self.note(0, port, bytes);
        self.checker.entered(port, bytes);
        if self.sabotage == Sabotage::LoseFrame && self.frame_count == 40 {
            return;
        }
        let Some(frame) = self.frames.copy_of(bytes) else {
            return self.checker.violated("no frame for the wire");
        };
        if !self.nodes[number].give(port, frame) {
            self.checker.violated("a queue overflowed");
        }
        if self.sabotage == Sabotage::HoldFrame && self.held.is_empty() {
            self.held.extend(self.frames.copy_of(bytes));
        }
    }

    pub(super) fn queue_of(&mut self, port: PortId, bytes: &[u8]) -> usize {
        let workers = self.nodes.len() as u64;
        let is_anywhere = match self.plan.spread {
            Spread::ByFlow => false,
            Spread::AnywhereInside => port == INTERNAL,
            Spread::Anywhere => true,
        };
        let mac = if port == EXTERNAL { EXTERNAL_MAC } else { INTERNAL_MAC };
        match parse(bytes, mac) {
            Ok(Parsed::Ip(packet)) if !is_anywhere && packet.class != Class::Icmp => {
                (HashSeed::fixed(self.plan.seed).hash(&packet.key) % workers) as usize
            }
            _ => self.random.below(workers) as usize,
        }
    }

    /// Lets the workers take turns until all are quiet, and takes what they send.
    pub(super) fn settle(&mut self) {
        for round in 0..TURNS_MAX {
            let mut busy = false;
            for number in 0..self.nodes.len() {
                if round == 0 && !self.nodes[number].has_cause(self.now) {
                    continue;
                }
                if self.plan.turning && round < LAGGING_TURNS && self.random.per_mille(300) {
                    busy = true;
                    continue;
                }
                busy |= self.nodes[number].turn(self.now);
                busy |= self.collect(number);
            }
            if !busy {
                self.look();
                return;
            }
        }
        // While workers differ about the configuration, each may hold the other for a packet's owner.
        let generation = self.nodes[0].worker.generation();
        let agree = self.nodes.iter().all(|node| node.worker.generation() == generation);
        self.checker.expect(!agree, || "workers are never quiet".into());
    }

    pub(super) fn look(&mut self) {
        let waiting = self.frames.in_use() - self.held.len();
        self.checker.check_now(&self.nodes, waiting);
        if self.plan.turning || self.steps.is_multiple_of(SWEEP_STEPS) {
            self.checker.sweep(&mut self.nodes, self.now);
        }
        for suspect in std::mem::take(&mut self.members.suspects) {
            self.checker.check_suspect(&mut self.nodes, &suspect, self.now);
        }
    }

    pub(super) fn collect(&mut self, number: usize) -> bool {
        let mut any = false;
        for port in [EXTERNAL, INTERNAL] {
            while let Some(frame) = self.nodes[number].take(port) {
                any = true;
                let heard = wire::hear(frame.bytes());
                self.checker.left(port, frame.bytes(), &heard);
                if heard == Heard::News {
                    continue;
                }
                self.note(1, port, frame.bytes());
                let weather = Weather { corrupts: 0, ..self.plan.weather };
                for (delay, bytes) in weather.carry(&mut self.random, frame.bytes()) {
                    self.later(self.now + delay, Event::ToHost(port, bytes));
                }
            }
        }
        any
    }
}

/// Turns after which workers that are still busy are busy with each other.
const TURNS_MAX: usize = 64;
/// Turns of which a worker that lags behind misses some.
const LAGGING_TURNS: usize = 8;
/// Steps from one look at every flow to the next.
const SWEEP_STEPS: u64 = 64;
