//! What the tests of the whole switch share.
//!
//! * [`guest`]: virtual machines with other kernels, for what namespaces cannot show.

pub mod guest;
