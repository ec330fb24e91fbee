//! The OpenFlow pipeline without IO: bridges, tables, translation, MAC learning.
//!
//! A [`Network`] is one immutable version of all bridges. The control thread builds it and replaces it whole;
//! handler threads read it and [`translate`] the first packet of each flow into a megaflow: datapath actions,
//! the mask of the bits that decided them, and, as data, whatever else the packet causes (addresses learnt,
//! addresses relied upon, rules hit). Only [`mac`] holds state that packets change, and it takes the time from
//! its caller.
//!
//! * [`vlan`]: sets of VLANs and the VLAN modes of ports;
//! * [`port`], [`bridge`], [`network`]: the immutable view that translation reads;
//! * [`eth`]: Ethernet addresses, and those of bridge protocols;
//! * [`rule`], [`actions`]: OpenFlow rules and what they do;
//! * [`mac`]: the MAC table of a bridge;
//! * [`xlate`]: how a packet is translated.

pub mod actions;
pub mod bridge;
pub mod eth;
pub mod mac;
pub mod network;
pub mod port;
pub mod rule;
pub mod vlan;
pub mod xlate;

pub use actions::OfAction;
pub use bridge::{Bridge, BridgeId};
pub use mac::{MacTable, MacTables};
pub use network::Network;
pub use port::OfPort;
pub use xlate::{TranslateOptions, Translation, translate};
