//! Network devices of the kernel: netlink, ethtool, AF_XDP and packet sockets.
//!
//! This crate finds, watches, prepares and makes links, takes frames from the upcall pair and sends frames to
//! links. It knows nothing of flows, bridges or configuration. Everything but [`watch`] is synchronous.

pub mod ethtool;
pub mod hook;
pub mod internal;
pub mod link;
pub mod namespace;
mod netlink;
pub mod packet_out;
pub mod packet_receiver;
mod packet_socket;
pub mod pair;
pub mod prepare;
pub mod receiver;
mod sys;
pub mod watch;
pub mod xdp_features;
pub mod xsk;

pub use ethtool::{Ethtool, EthtoolError};
pub use hook::{Hook, HookChoice, HookWish, choose_hook};
pub use internal::{InternalPort, InternalPortSpec};
pub use link::{Link, LinkError, Links, MacAddress};
pub use namespace::{NamedNamespace, Namespace, NamespaceError};
pub use netlink::NetlinkError;
pub use packet_out::{PacketOut, Sent};
pub use pair::{PairError, UpcallPair};
pub use prepare::{PrepareError, Prepared, Preparer};
pub use receiver::{Receiver, ReceiverStatistics, UpcallReceiver};
pub use watch::{LinkEvent, LinkWatch};
pub use xdp_features::{XdpOutput, xdp_output};
pub use xsk::{UpcallSocket, XskOptions};
