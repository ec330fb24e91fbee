//! Names of the eBPF programs, and their places in the program arrays, which the loader fills.

/// Ports: XDP (with frags).
pub const XDP: &str = "sluice_xdp";
/// Ports: TC ingress.
pub const TC: &str = "sluice_tc";
/// TC egress of the upcall pair's near end.
pub const UPCALL_PUSH: &str = "upcall_push";
/// XDP (with frags) of its far end.
pub const UPCALL_XDP: &str = "upcall_xdp";
/// Tracepoint `xdp:xdp_devmap_xmit`.
pub const XDP_TRANSMIT: &str = "xdp_transmit";
/// Tracepoint `xdp:xdp_redirect_err`.
pub const XDP_REDIRECT_ERR: &str = "xdp_redirect_err";

/// Index in `XDP_PROGS` of each program that is called from there.
pub const XDP_CALLS: &[(u32, &str)] = &[(XDP_ACTIONS, "xdp_actions")];
/// Carries out an action list.
pub const XDP_ACTIONS: u32 = 0;

/// Index in `TC_PROGS` of each program that is called from there.
pub const TC_CALLS: &[(u32, &str)] = &[(TC_ACTIONS, "tc_actions"), (TC_RECIRCULATE, "tc_recirculate")];
/// Carries out an action list.
pub const TC_ACTIONS: u32 = 0;
/// Looks a packet up again.
pub const TC_RECIRCULATE: u32 = 1;
