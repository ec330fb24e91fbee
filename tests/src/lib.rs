//! What the tests of the whole switch share.
//!
//! * [`fuzzing`]: bodies of the fuzz targets;
//! * [`guest`]: virtual machines with other kernels, for what namespaces cannot show;
//! * [`lab`]: namespaces with hosts, cables and a switch daemon;
//! * [`sandbox`]: an unnamed namespace for one test thread.

pub mod fuzzing;
pub mod guest;
pub mod lab;
pub mod sandbox;
