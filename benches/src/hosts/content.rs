//! What segments carry: clients look at answers, members at requests.

use super::Hosts;
use super::message::{HEAD_MAX, Head, end_of_head, number_of_request};

impl Hosts {
    /// False when this is not what was asked for.
    pub(super) fn take_answer(&mut self, client: usize, payload: &[u8]) -> bool {
        let end = self.clients[client];
        if !end.waits {
            return false;
        }
        if self.exchange.is_http && end.had == 0 {
            let is_usual = !self.head.is_empty() && payload.starts_with(&self.head);
            if is_usual && self.pieces.is_empty() {
                self.clients[client].is_last = self.is_last;
                return self.take_body(client, self.response.number_at(), &payload[self.head.len()..]);
            }
            return self.take_head(client, payload);
        }
        self.take_body(client, end.had as usize, payload)
    }

    /// A head that is not like the one before, or comes in pieces.
    #[cold]
    fn take_head(&mut self, client: usize, payload: &[u8]) -> bool {
        let mut bytes = self.pieces.remove(&(true, client)).unwrap_or_default();
        bytes.extend_from_slice(payload);
        match Head::read(&bytes, self.body_bytes()) {
            Ok(Some(head)) => {
                self.head.clear();
                self.head.extend_from_slice(&bytes[..head.len]);
                self.is_last = head.closes;
                self.clients[client].is_last = head.closes;
                self.take_body(client, self.response.number_at(), &bytes[head.len..])
            }
            Ok(None) => {
                self.pieces.insert((true, client), bytes);
                self.clients[client].owe_ack();
                true
            }
            Err(_) => false,
        }
    }

    /// A part of the answer that begins at `from` in the member's.
    fn take_body(&mut self, client: usize, from: usize, payload: &[u8]) -> bool {
        let (response, end) = (&self.response, &mut self.clients[client]);
        if !response.is_part(from, end.number, payload) {
            return false;
        }
        end.had = (from + payload.len()) as u32;
        if end.had as usize == response.len() {
            end.waits = false;
            self.tally.answered += 1;
            if !end.is_last {
                self.make_idle(client);
            }
        } else {
            end.owe_ack();
        }
        true
    }

    /// False when nobody asked this.
    pub(super) fn take_request(&mut self, member: usize, payload: &[u8]) -> bool {
        let is_whole = payload.ends_with(b"\r\n\r\n") && payload.starts_with(b"GET /");
        if !is_whole || !self.pieces.is_empty() {
            return self.take_piece(member, payload);
        }
        self.answer(member, payload)
    }

    #[cold]
    fn take_piece(&mut self, member: usize, payload: &[u8]) -> bool {
        let mut bytes = self.pieces.remove(&(false, member)).unwrap_or_default();
        bytes.extend_from_slice(payload);
        match end_of_head(&bytes) {
            Some(len) => len == bytes.len() && self.answer(member, &bytes),
            None => {
                let has_room = bytes.len() < HEAD_MAX;
                self.pieces.insert((false, member), bytes);
                self.members[member].owe_ack();
                has_room
            }
        }
    }

    fn answer(&mut self, member: usize, request: &[u8]) -> bool {
        let (len, end) = (self.response.len(), &mut self.members[member]);
        let number = number_of_request(request).filter(|_| end.has_said_all());
        number.inspect(|&number| end.say(number, len)).is_some()
    }
}
