//! Translation: what the OpenFlow tables say of one packet, as datapath actions and the mask of the packets of
//! which they say the same.
//!
//! [`translate`] is a function of its arguments. All that a packet causes besides is answered as data: addresses
//! to learn, addresses whose place was relied upon, rules that were hit. So a trace has no side effects, and a
//! revalidator compares what a megaflow does with what it should do by translating again.
//!
//! A translation holds the packet twice: `flow`, as the pipeline sees it, and `base`, as it stands in the
//! datapath at this point of the action list. Actions change `flow` alone; before each output, `commit` adds the
//! datapath actions that turn `base` into `flow`.
//!
//! **The mask.** Every bit of the packet on which anything depended is in it: what the classifier needed, what
//! an action read, what NORMAL looked at. A field that an action sets is in it too, so that the datapath action
//! can be left out where the packet has that value already. For VLAN tags, which NORMAL moves about on most
//! packets, this would be wasteful, so each tag remembers which of the packet's tags it was (`tags`), and what
//! nobody looked at stays unmatched.
//!
//! * `context`: the state of a translation;
//! * `pipeline`: tables and actions;
//! * `fields`: which packets have which field;
//! * `normal`: the NORMAL action;
//! * `tags`: VLAN tags and where they came from;
//! * `output`: ports, real, reserved and patch;
//! * `commit`: the difference of two keys as datapath actions;
//! * [`trace`]: the steps, for people.

mod commit;
mod context;
mod fields;
mod normal;
mod output;
mod pipeline;
mod tags;
pub mod trace;

use switch_common::counter::Drop;
use switch_common::key::{FlowKey, FlowMask};
use switch_dpif::action::{DpAction, DpPort};
use thiserror::Error;

use crate::bridge::BridgeId;
use crate::mac::{Learn, MacDep, MacView};
use crate::network::Network;
use crate::port::OfPort;
use crate::rule::RuleRef;
use context::Context;
use trace::{StepKind, Trace};

/// Tables and bridges inside each other at most.
pub const MAX_DEPTH: usize = 64;
/// Resubmits, goto_tables and patch ports of one translation at most.
pub const MAX_RESUBMITS: usize = 4096;

/// How to translate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TranslateOptions {
    /// Collect the steps.
    pub trace: bool,
}

/// Why a translation failed. Its packets are dropped for [`Drop::Translation`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum TranslateError {
    #[error("over max translation depth {MAX_DEPTH}")]
    TooDeep,
    #[error("over {MAX_RESUBMITS} resubmit actions")]
    TooManyResubmits,
    #[error("more than {} datapath actions", switch_common::action::MAX_ACTIONS)]
    TooManyActions,
    #[error("more than two VLAN tags")]
    TooManyTags,
    #[error("no translation waits for recirculation id {0:#x}")]
    NoRecirculation(u32),
}

/// Why the datapath cannot carry a flow out without userspace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slow {
    /// A copy goes to a controller.
    Controller,
}

/// A copy of the packet that a controller gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PacketIn {
    pub bridge: BridgeId,
    pub in_port: OfPort,
    /// The rule whose action sent it.
    pub rule: RuleRef,
    /// Bytes of the packet at most.
    pub max_len: u16,
}

/// What became of a packet: see the head of this module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Translation {
    /// An empty list drops the packet because the tables say so; any other drop ends in [`DpAction::Drop`].
    pub actions: Vec<DpAction>,
    /// Includes [`FlowMask::floor`], and nothing past the kind of the key.
    pub mask: FlowMask,
    pub learns: Vec<Learn>,
    pub deps: Vec<MacDep>,
    /// In the order in which they were hit; a rule can be there more than once.
    pub rules: Vec<RuleRef>,
    /// Why no port gets the packet; `None` if one does.
    pub drop_reason: Option<Drop>,
    pub error: Option<TranslateError>,
    pub slow: Option<Slow>,
    pub packet_ins: Vec<PacketIn>,
    /// If [`TranslateOptions::trace`] asked for it.
    pub trace: Option<Trace>,
}

/// Translates a packet with this key that came in on a port of the datapath.
pub fn translate(
    network: &Network,
    macs: &dyn MacView,
    in_port: DpPort,
    key: &FlowKey,
    options: &TranslateOptions,
) -> Translation {
    let Some(at) = network.port_of(in_port) else {
        return unplaced(key, Drop::NoPort, None, options, || {
            format!("no bridge has datapath port {}", in_port.0)
        });
    };
    let Some(bridge) = network.bridge(at.bridge) else {
        return unplaced(key, Drop::NoPort, None, options, || "the port's bridge is gone".to_owned());
    };
    if key.recirc_id() != 0 {
        let error = TranslateError::NoRecirculation(key.recirc_id());
        return unplaced(key, Drop::Translation, Some(error), options, || error.to_string());
    }
    let mut context = Context::new(network, macs, bridge, at.port, key, options);
    context.enter_bridge();
    context.finish()
}

/// The answer for a packet that is in no bridge.
fn unplaced(
    key: &FlowKey,
    reason: Drop,
    error: Option<TranslateError>,
    options: &TranslateOptions,
    why: impl FnOnce() -> String,
) -> Translation {
    let mut tracer = trace::Tracer::new(options.trace);
    tracer.add(StepKind::Error, false, why);
    let mut mask = FlowMask::floor();
    mask.restrict(key.kind());
    Translation {
        actions: vec![DpAction::Drop(reason)],
        mask,
        learns: Vec::new(),
        deps: Vec::new(),
        rules: Vec::new(),
        drop_reason: Some(reason),
        error,
        slow: None,
        packet_ins: Vec::new(),
        trace: tracer.finish(),
    }
}
