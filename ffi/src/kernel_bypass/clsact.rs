//! [`Filters`]: our programs as filters of an interface's `clsact` queueing discipline, for kernels without tcx.
//!
//! ```text
//!   clsact ┬ ingress, priority 1 ─ bpf, handle HANDLE, named "sluice.." ─ other people's filters
//!          └ egress,  priority 1 ─ the same
//! ```
//!
//! The kernel keeps filters when their process ends, so a process that was killed leaves some behind: the next one
//! finds them by handle and name, and replaces them in place. What is not named so is never touched. The discipline
//! goes when the filters go, if we made it (the filter's name says so) and nobody else has a filter there.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::netlink::{Attribute, Header, Netlink, attribute};

/// Our filters on one interface; taken away on drop, unless somebody has replaced them.
#[derive(Debug)]
pub(super) struct Filters {
    netlink: Netlink,
    index: u32,
    /// Made by us, or by a process of ours that was killed.
    owns_discipline: bool,
    /// Where, and the kernel's number of the program.
    ours: Vec<(Side, u32)>,
}

/// One of the two places of a clsact discipline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Ingress,
    Egress,
}

impl Filters {
    /// Puts `ingress` and `egress` on interface `index` of the calling thread's network namespace, ahead of other
    /// filters, in place of those that an earlier process left.
    ///
    /// # Errors
    /// The kernel's; `AlreadyExists` when somebody else's filter has our place, or another discipline clsact's. Then
    /// all is as before.
    pub(super) fn attach(index: u32, ingress: &OwnedFd, egress: &OwnedFd) -> io::Result<Self> {
        let netlink = Netlink::open()?;
        let mut filters = Self { netlink, index, owns_discipline: false, ours: Vec::new() };
        filters.find_or_make_discipline()?;
        filters.put(Side::Ingress, ingress)?;
        filters.put(Side::Egress, egress)?;
        Ok(filters)
    }

    fn find_or_make_discipline(&mut self) -> io::Result<()> {
        let create = libc::NLM_F_CREATE | libc::NLM_F_EXCL | libc::NLM_F_ACK;
        match self.netlink.ask(&self.discipline(libc::RTM_NEWQDISC, create)) {
            Ok(_) => {
                self.owns_discipline = true;
                Ok(())
            }
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => self.check_discipline(),
            Err(error) => Err(error),
        }
    }

    /// The discipline `ingress` has the same place, and would take an egress filter for one of ingress.
    fn check_discipline(&self) -> io::Result<()> {
        // Without the flag it is told to listeners alone, not to us.
        let answer = self.netlink.ask(&self.discipline(libc::RTM_GETQDISC, libc::NLM_F_ECHO))?;
        let kind = answer.get(size_of::<Place>()..).and_then(|rest| attribute(rest, TCA_KIND));
        if kind == Some(CLSACT) { Ok(()) } else { Err(taken("another ingress discipline is there")) }
    }

    fn put(&mut self, side: Side, program: &OwnedFd) -> io::Result<()> {
        if let Some(stale) = self.find(side)? {
            self.owns_discipline |= stale.owns_discipline;
        }
        self.netlink.ask(&self.filter(side, program))?;
        let found = self.find(side)?.ok_or(io::ErrorKind::NotFound)?;
        self.ours.push((side, found.program));
        Ok(())
    }

    /// The filter at our place, if it is one of ours. Where there are no filters at all the kernel says that the
    /// request is wrong; where the priority is of another kind, too, and then it will not take a filter of ours.
    fn find(&self, side: Side) -> io::Result<Option<Found>> {
        match self.netlink.ask(&self.named(libc::RTM_GETTFILTER, side, HANDLE, 0)) {
            Ok(answer) => match Found::read(&answer) {
                Some(found) => Ok(Some(found)),
                None => Err(taken("somebody else's filter has our priority and handle")),
            },
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT | libc::EINVAL) => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// Deletes what is ours on a side, unless it is another process's by now.
    fn take_away(&self, side: Side, program: u32) -> io::Result<()> {
        if self.find(side)?.is_some_and(|found| found.program == program) {
            self.netlink.ask(&self.named(libc::RTM_DELTFILTER, side, HANDLE, libc::NLM_F_ACK))?;
        }
        Ok(())
    }

    fn take_discipline_away(&self) -> io::Result<()> {
        for side in [Side::Ingress, Side::Egress] {
            if self.netlink.lists_any(&self.list(side))? {
                return Ok(());
            }
        }
        self.netlink.ask(&self.discipline(libc::RTM_DELQDISC, libc::NLM_F_ACK)).map(|_| ())
    }

    fn place(&self, parent: u32, handle: u32, info: u32) -> Place {
        Place { family: 0, index: self.index, handle, parent, info }
    }

    fn discipline(&self, kind: u16, flags: libc::c_int) -> DisciplineRequest {
        DisciplineRequest {
            header: Header::of::<DisciplineRequest>(kind, flags),
            place: self.place(CLSACT_PARENT, CLSACT_HANDLE, 0),
            kind: Attribute::new(TCA_KIND, *CLSACT_PADDED),
        }
    }

    fn named(&self, kind: u16, side: Side, handle: u32, flags: libc::c_int) -> NamedRequest {
        NamedRequest {
            header: Header::of::<NamedRequest>(kind, flags),
            place: self.place(side.parent(), handle, PRIORITY_AND_PROTOCOL),
            kind: Attribute::new(TCA_KIND, *BPF),
        }
    }

    fn list(&self, side: Side) -> ListRequest {
        let header = Header::of::<ListRequest>(libc::RTM_GETTFILTER, libc::NLM_F_DUMP);
        ListRequest { header, place: self.place(side.parent(), 0, 0) }
    }

    fn filter(&self, side: Side, program: &OwnedFd) -> FilterRequest {
        let name = if self.owns_discipline { NAME_OF_OWNER } else { NAME };
        let options = Options {
            program: Attribute::new(TCA_BPF_FD, program.as_raw_fd() as u32),
            name: Attribute::new(TCA_BPF_NAME, *name),
            flags: Attribute::new(TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT),
            // A NIC that dropped by itself would keep the frames from us, too.
            hardware: Attribute::new(TCA_BPF_FLAGS_GEN, TCA_CLS_FLAGS_SKIP_HW),
        };
        let flags = libc::NLM_F_CREATE | libc::NLM_F_ACK;
        FilterRequest {
            named: NamedRequest {
                header: Header::of::<FilterRequest>(libc::RTM_NEWTFILTER, flags),
                ..self.named(libc::RTM_NEWTFILTER, side, HANDLE, flags)
            },
            options: Attribute::new(TCA_OPTIONS, options),
        }
    }
}

impl Drop for Filters {
    fn drop(&mut self) {
        // An interface that is gone took its filters along; and nobody is left to be told.
        for (side, program) in std::mem::take(&mut self.ours) {
            let _ = self.take_away(side, program);
        }
        if self.owns_discipline {
            let _ = self.take_discipline_away();
        }
    }
}

impl Side {
    fn parent(self) -> u32 {
        match self {
            Side::Ingress => 0xffff_fff2,
            Side::Egress => 0xffff_fff3,
        }
    }
}

/// What the kernel says of a filter of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    program: u32,
    owns_discipline: bool,
}

impl Found {
    /// `None` for somebody else's.
    fn read(message: &[u8]) -> Option<Self> {
        let attributes = message.get(size_of::<Place>()..)?;
        if attribute(attributes, TCA_KIND)? != BPF {
            return None;
        }
        let options = attribute(attributes, TCA_OPTIONS)?;
        let name = attribute(options, TCA_BPF_NAME)?;
        let is =
            |ours: &[u8; NAME_BYTES]| name == &ours[..ours.iter().take_while(|&&byte| byte != 0).count() + 1];
        let program = u32::from_ne_bytes(attribute(options, TCA_BPF_ID)?.try_into().ok()?);
        let owns_discipline = is(NAME_OF_OWNER);
        (owns_discipline || is(NAME)).then_some(Self { program, owns_discipline })
    }
}

fn taken(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, why)
}

/// `struct tcmsg`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Place {
    /// And three bytes of padding.
    family: u32,
    index: u32,
    handle: u32,
    parent: u32,
    info: u32,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct DisciplineRequest {
    header: Header,
    place: Place,
    kind: Attribute<[u8; 8]>,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct ListRequest {
    header: Header,
    place: Place,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct NamedRequest {
    header: Header,
    place: Place,
    kind: Attribute<[u8; 4]>,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct FilterRequest {
    named: NamedRequest,
    options: Attribute<Options>,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Options {
    program: Attribute<u32>,
    name: Attribute<[u8; NAME_BYTES]>,
    flags: Attribute<u32>,
    hardware: Attribute<u32>,
}

/// The one place of a clsact discipline, and the handle that it always has.
const CLSACT_PARENT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
/// "slui"; other people's are small, or begin with 8.
const HANDLE: u32 = 0x736c_7569;
/// The first, for all protocols.
const PRIORITY_AND_PROTOCOL: u32 = 1 << 16 | (libc::ETH_P_ALL as u16).to_be() as u32;

const CLSACT: &[u8] = b"clsact\0";
const CLSACT_PADDED: &[u8; 8] = b"clsact\0\0";
const BPF: &[u8; 4] = b"bpf\0";
const NAME_BYTES: usize = 24;
const NAME: &[u8; NAME_BYTES] = b"sluice\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
const NAME_OF_OWNER: &[u8; NAME_BYTES] = b"sluice, made clsact\0\0\0\0\0";

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_FLAGS_GEN: u16 = 9;
const TCA_BPF_ID: u16 = 11;
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;
const TCA_CLS_FLAGS_SKIP_HW: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: [u8; 4], name: &[u8; NAME_BYTES]) -> Vec<u8> {
        let place = Place { family: 0, index: 1, handle: HANDLE, parent: 0, info: 0 };
        let name_len = name.iter().position(|&byte| byte == 0).unwrap() + 1;
        let mut options = [&(name_len as u16 + 4).to_ne_bytes()[..], &TCA_BPF_NAME.to_ne_bytes()].concat();
        options.extend_from_slice(&name[..name_len.next_multiple_of(4)]);
        options.extend_from_slice(bytemuck::bytes_of(&Attribute::new(TCA_BPF_ID, 77u32)));
        let head = [(options.len() as u16 + 4).to_ne_bytes(), TCA_OPTIONS.to_ne_bytes()].concat();
        let kind = Attribute::new(TCA_KIND, kind);
        [bytemuck::bytes_of(&place), bytemuck::bytes_of(&kind), &head, &options].concat()
    }

    #[test]
    fn only_filters_with_our_names_are_ours() {
        let found = |owns_discipline| Some(Found { program: 77, owns_discipline });
        assert_eq!(Found::read(&message(*BPF, NAME)), found(false));
        assert_eq!(Found::read(&message(*BPF, NAME_OF_OWNER)), found(true));
        assert_eq!(Found::read(&message(*b"u32\0", NAME)), None);
        for other in [b"sluice.o:[tc]\0\0\0\0\0\0\0\0\0\0\0", b"sluic\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"]
        {
            assert_eq!(Found::read(&message(*BPF, other)), None);
        }
        let whole = message(*BPF, NAME);
        for len in 0..whole.len() {
            assert_eq!(Found::read(&whole[..len]), None, "{len} bytes");
        }
    }
}
