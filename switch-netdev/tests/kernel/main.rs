//! Against the real kernel, inside network namespaces that each test makes for itself. Without root, each test
//! says so and does nothing.

mod bpf;
mod events;
mod internal_ports;
mod links;
mod output;
mod ports;
mod support;
mod upcalls;
