//! What the control thread hands to workers: identities that stay stable over applies, the immutable
//! [`snapshot`], and the [`mailbox`] it travels through.

pub mod ids;
pub mod mailbox;
pub mod parts;
pub mod proxy;
pub mod snapshot;
