//! The state of one translation.

use switch_classifier::{Field, Flow, FlowWildcards};
use switch_common::action::MAX_ACTIONS;
use switch_common::counter::Drop;
use switch_common::key::FlowKey;
use switch_dpif::action::DpAction;

use super::tags::{ORIGINAL, Origins};
use super::trace::{StepKind, Tracer};
use super::{PacketIn, Slow, TranslateError, TranslateOptions, Translation};
use crate::bridge::Bridge;
use crate::mac::{Learn, MacDep, MacView};
use crate::network::{Network, PortRef};
use crate::port::OfPort;
use crate::rule::RuleRef;

/// See the head of [`super`].
pub(super) struct Context<'a> {
    pub network: &'a Network,
    pub macs: &'a dyn MacView,
    /// The bridge that the packet is in now.
    pub bridge: &'a Bridge,
    /// The packet as it came.
    pub original: &'a FlowKey,
    /// The packet as the pipeline sees it.
    pub flow: Flow,
    /// Which of the packet's tags those of `flow` were.
    pub flow_origins: Origins,
    /// The packet as the datapath actions so far leave it.
    pub base: FlowKey,
    pub base_origins: Origins,
    /// What the answer depends on because an action read or wrote it, as bits of `original`. It follows from the
    /// way through the tables, so the form of datapath actions may depend on it.
    pub decided: FlowWildcards,
    /// What it depends on because look-ups did. A classifier can have several proofs of one answer and take
    /// another one for another packet of the same megaflow.
    pub looked_up: FlowWildcards,
    pub actions: Vec<DpAction>,
    pub learns: Vec<Learn>,
    pub deps: Vec<MacDep>,
    pub rules: Vec<RuleRef>,
    pub packet_ins: Vec<PacketIn>,
    pub slow: Option<Slow>,
    pub depth: usize,
    pub resubmits: usize,
    pub error: Option<TranslateError>,
    pub tracer: Tracer,
    /// The first reason for which somebody did not forward the packet.
    drop_reason: Option<Drop>,
    has_output: bool,
}

impl<'a> Context<'a> {
    pub fn new(
        network: &'a Network,
        macs: &'a dyn MacView,
        bridge: &'a Bridge,
        in_port: OfPort,
        key: &'a FlowKey,
        options: &TranslateOptions,
    ) -> Context<'a> {
        let mut flow = Flow::new(*key, in_port.number());
        flow.actset_output = OfPort::UNSET.number();
        Context {
            network,
            macs,
            bridge,
            original: key,
            flow,
            flow_origins: ORIGINAL,
            base: *key,
            base_origins: ORIGINAL,
            decided: FlowWildcards::EMPTY,
            looked_up: FlowWildcards::EMPTY,
            actions: Vec::new(),
            learns: Vec::new(),
            deps: Vec::new(),
            rules: Vec::new(),
            packet_ins: Vec::new(),
            slow: None,
            depth: 0,
            resubmits: 0,
            error: None,
            tracer: Tracer::new(options.trace),
            drop_reason: None,
            has_output: false,
        }
    }

    /// The port of the bridge that the packet came in on, as the pipeline sees it.
    pub fn in_port(&self) -> OfPort {
        OfPort::from_number(self.flow.in_port)
    }

    /// A port of the bridge that the packet is in.
    pub fn at(&self, port: OfPort) -> PortRef {
        PortRef { bridge: self.bridge.id, port }
    }

    /// The answer depends on the whole field.
    pub fn read(&mut self, field: Field) -> u128 {
        self.decided.set_field(field);
        self.flow.get(field)
    }

    /// The answer depends on these bits of the field.
    pub fn read_bits(&mut self, field: Field, bits: u128) -> u128 {
        self.decided.set_bits(field, bits);
        self.flow.get(field) & bits
    }

    /// Adds a datapath action that is not an output.
    pub fn emit(&mut self, action: DpAction) {
        if self.actions.len() < MAX_ACTIONS {
            self.actions.push(action);
        } else {
            self.fail(TranslateError::TooManyActions);
        }
    }

    /// Adds a datapath action that sends the packet somewhere.
    pub fn emit_output(&mut self, action: DpAction) {
        self.emit(action);
        self.has_output = true;
    }

    /// Somebody does not forward the packet. It counts if in the end nobody does.
    pub fn refuse(&mut self, reason: Drop) {
        self.drop_reason.get_or_insert(reason);
    }

    /// Gives up: the packet is dropped, whatever was done so far.
    pub fn fail(&mut self, error: TranslateError) {
        if self.error.is_none() {
            self.error = Some(error);
            self.tracer.add(StepKind::Error, false, || error.to_string());
        }
    }

    pub fn detail(&mut self, text: impl FnOnce() -> String) {
        self.tracer.add(StepKind::Detail, false, text);
    }

    pub fn warn(&mut self, text: impl FnOnce() -> String) {
        self.tracer.add(StepKind::Warning, false, text);
    }

    /// The answer.
    pub fn finish(mut self) -> Translation {
        let reason = if self.error.is_some() {
            Some(Drop::Translation)
        } else if self.has_output {
            None
        } else {
            Some(self.drop_reason.unwrap_or(Drop::Policy))
        };
        if self.error.is_some() {
            self.slow = None;
            self.packet_ins.clear();
        }
        match reason {
            None => {}
            Some(Drop::Policy) => self.actions.clear(),
            Some(reason) => self.actions = vec![DpAction::Drop(reason)],
        }
        self.looked_up.unite(&self.decided);
        Translation {
            actions: self.actions,
            mask: self.looked_up.datapath_mask(self.original.kind()),
            learns: self.learns,
            deps: self.deps,
            rules: self.rules,
            drop_reason: reason,
            error: self.error,
            slow: self.slow,
            packet_ins: self.packet_ins,
            trace: self.tracer.finish(),
        }
    }
}
