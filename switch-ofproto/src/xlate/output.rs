//! Ports, real, reserved and patch.

use switch_common::counter::Drop;
use switch_dpif::action::DpAction;

use super::context::Context;
use super::{PacketIn, Slow};
use crate::port::{OfPort, PortKind};
use crate::rule::RuleRef;

impl Context<'_> {
    /// The action "output".
    pub fn output(&mut self, port: OfPort, max_len: Option<u32>, rule: RuleRef) {
        match port {
            OfPort::IN_PORT => self.output_to(self.in_port(), max_len),
            OfPort::NORMAL => self.normal(),
            OfPort::FLOOD => self.output_to_all(false),
            OfPort::ALL => self.output_to_all(true),
            OfPort::CONTROLLER => self.send_to_controller(u16::MAX, rule),
            OfPort::TABLE => self.warn(|| "TABLE is only for packets of a controller".to_owned()),
            _ if port == self.in_port() => {
                self.warn(|| "skipping output to input port".to_owned());
                self.refuse(Drop::Hairpin);
            }
            _ => self.output_to(port, max_len),
        }
    }

    fn output_to_all(&mut self, even_if_not_flooded: bool) {
        let bridge = self.bridge;
        let in_port = self.in_port();
        for port in bridge.ports() {
            if port.number != in_port && port.up && (port.flood || even_if_not_flooded) {
                self.output_to(port.number, None);
            }
        }
        self.refuse(Drop::Hairpin);
    }

    pub fn send_to_controller(&mut self, max_len: u16, rule: RuleRef) {
        if !self.bridge.has_controller {
            self.detail(|| "no controller is connected".to_owned());
            return;
        }
        self.slow = Some(Slow::Controller);
        let packet_in = PacketIn { bridge: self.bridge.id, in_port: self.in_port(), rule, max_len };
        self.packet_ins.push(packet_in);
    }

    /// Sends the packet as it is now to a port of the bridge, whichever port it came in on.
    pub fn output_to(&mut self, number: OfPort, max_len: Option<u32>) {
        if self.error.is_some() {
            return;
        }
        let bridge = self.bridge;
        let Some(port) = bridge.port(number) else {
            self.warn(|| format!("Nonexistent output port {number}"));
            self.refuse(Drop::NoOutput);
            return;
        };
        if !port.forward {
            self.detail(|| "OFPPC_NO_FWD set, skipping output".to_owned());
            self.refuse(Drop::Policy);
            return;
        }
        match port.kind {
            PortKind::Datapath(dp) => {
                self.commit();
                if let Some(max_len) = max_len {
                    self.emit(DpAction::Truncate(max_len));
                }
                self.emit_output(DpAction::Output(dp));
            }
            PortKind::Patch { .. } => self.output_to_peer(number),
        }
    }

    /// Through a patch port: on in the other bridge, whose changes to the packet end there.
    fn output_to_peer(&mut self, number: OfPort) {
        let network = self.network;
        let end = network.peer(self.at(number)).and_then(|p| Some((network.bridge(p.bridge)?, p.port)));
        let Some((peer, in_port)) = end else {
            self.warn(|| format!("patch port {number} has no peer"));
            self.refuse(Drop::NoOutput);
            return;
        };
        self.deeper(|c| {
            let (bridge, flow, origins) = (c.bridge, c.flow, c.flow_origins);
            c.bridge = peer;
            c.flow.in_port = in_port.number();
            c.flow.metadata = 0;
            c.flow.regs = [0; 16];
            c.flow.actset_output = OfPort::UNSET.number();
            c.flow.conj_id = 0;
            c.enter_bridge();
            (c.bridge, c.flow, c.flow_origins) = (bridge, flow, origins);
        });
    }
}
