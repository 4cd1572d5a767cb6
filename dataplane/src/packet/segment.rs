//! Cutting a super-frame into MTU-sized frames in software, for devices that cannot.
