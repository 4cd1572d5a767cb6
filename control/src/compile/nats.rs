//! Bidirectional one-to-one translations.

use sluice_dataplane::address::Address;
use sluice_dataplane::config::snapshot as plane;

use super::network::unusable_host;
use super::own_hosts::Users;
use super::{Compile, pointer};
use crate::model::{Name, Nat};
use crate::parse::{Fault, Pointer};

impl Compile<'_> {
    pub(super) fn nats(&mut self) {
        let model = self.model;
        let mut origins = Users::new();
        let mut translations =
            if model.nats.is_empty() { Users::new() } else { self.own_addresses(|_, _| true) };
        for (name, nat) in &model.nats {
            let path = pointer("nats", name);
            self.origin(&path, name, nat, &mut origins);
            self.translation(&path, name, nat, &mut translations);
            let ingress = self.ingress(&path, nat);
            let (origin, translation) = (nat.origin.address(), nat.translation.address());
            self.parts.nats.push(plane::Nat { name: name.to_string(), origin, translation, ingress });
        }
    }

    fn origin(&mut self, path: &Pointer, name: &Name, nat: &Nat, users: &mut Users) {
        let (place, address) = (path.child("origin"), nat.origin.address());
        if let Some(why) = self.no_other_host(address) {
            self.error(place.clone(), why);
        }
        self.only_user(place, address, name, users);
    }

    fn translation(&mut self, path: &Pointer, name: &Name, nat: &Nat, users: &mut Users) {
        let (place, address) = (path.child("translation"), nat.translation.address());
        if let Some(why) = unusable_host(address) {
            self.error(place, format!("expected a unicast address; {why}"));
        } else if address == nat.origin.address() {
            self.error(place, "expected another address than the origin");
        } else if address.is_v4() != nat.origin.address().is_v4() {
            let origin = nat.origin;
            self.error(
                place,
                format!("expected an address of the origin's address family, which is {origin}"),
            );
        } else {
            self.only_user(place, address, name, users);
        }
    }

    fn only_user(&mut self, place: Pointer, address: Address, name: &Name, users: &mut Users) {
        if let Some((user, object)) = users.get(&address) {
            let message = format!("expected an address that nothing else uses; {address} belongs to {user}");
            self.errors.push(Fault::new(place, message).about(object.clone()));
        } else {
            users.insert(address, (format!("NAT {name}"), pointer("nats", name)));
        }
    }
}
