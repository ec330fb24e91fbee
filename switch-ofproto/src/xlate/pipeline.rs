//! Tables and actions.

use switch_classifier::{Field, FlowWildcards, Rule};
use switch_common::counter::Drop;
use switch_common::key::{VLAN_PRESENT, VLAN_VID_MASK};

use super::context::Context;
use super::fields::{ETH_IPV4, ETH_IPV6};
use super::tags::{ORIGINAL, Slot, Tag, tag_bits};
use super::trace::StepKind;
use super::{MAX_DEPTH, MAX_RESUBMITS, TranslateError};
use crate::actions::OfAction;
use crate::port::OfPort;
use crate::rule::{OfRule, RuleRef, TableId};
use crate::vlan::TPID_C;

impl<'a> Context<'a> {
    /// The packet comes in on a port of the bridge that it is in.
    pub fn enter_bridge(&mut self) {
        let bridge = self.bridge;
        self.tracer.add(StepKind::Bridge, self.depth > 0, || format!("bridge(\"{}\")", bridge.name));
        self.tracer.enter();
        if bridge.port(self.in_port()).is_some_and(|port| !port.receive) {
            self.detail(|| "OFPPC_NO_RECV set, dropping".to_owned());
            self.refuse(Drop::Policy);
        } else {
            self.run_tables(TableId(0), self.in_port(), false);
        }
        self.tracer.leave();
    }

    /// One level deeper, `what` happens, unless that is too deep.
    pub fn deeper(&mut self, what: impl FnOnce(&mut Self)) {
        if self.depth >= MAX_DEPTH {
            self.fail(TranslateError::TooDeep);
        } else if self.take_step() {
            self.depth += 1;
            what(self);
            self.depth -= 1;
        }
    }

    fn take_step(&mut self) -> bool {
        self.resubmits += 1;
        if self.resubmits > MAX_RESUBMITS {
            self.fail(TranslateError::TooManyResubmits);
        }
        self.error.is_none()
    }

    /// What a table says of the packet, as if it had come in on `in_port`, and on with the tables that its rule
    /// leads to. `resubmitted`: an action goes on behind it.
    pub fn run_tables(&mut self, first: TableId, in_port: OfPort, resubmitted: bool) {
        let (mut table, mut in_port) = (first, in_port);
        let mut open = 0;
        loop {
            let real_port = self.flow.in_port;
            // A rule sees the other port; its actions do not, so that IN_PORT and NORMAL are not surprised.
            self.flow.in_port = in_port.number();
            let found = self.look_up(table);
            self.flow.in_port = real_port;
            let nested = resubmitted && table == first;
            let Some(rule) = found else {
                self.tracer.add(StepKind::Table, nested, || format!("{:2}. No match.", table.0));
                self.tracer.enter();
                self.tracer.add(StepKind::Action, false, || "drop".to_owned());
                self.tracer.leave();
                self.refuse(Drop::Policy);
                break;
            };
            self.trace_rule(table, nested, rule);
            let OfRule { id, cookie, .. } = rule.payload;
            let rule_ref = RuleRef { bridge: self.bridge.id, table, priority: rule.priority, cookie, id };
            self.rules.push(rule_ref);
            self.tracer.enter();
            open += 1;
            match self.run_actions(&rule.payload, rule_ref) {
                Some(next) if self.take_step() => {
                    (table, in_port) = (next, self.in_port());
                    self.tracer.enter();
                    open += 1;
                }
                _ => break,
            }
        }
        for _ in 0..open {
            self.tracer.leave();
        }
    }

    fn trace_rule(&mut self, table: TableId, nested: bool, rule: &Rule<OfRule>) {
        self.tracer.add(StepKind::Table, nested, || {
            let (matching, cookie) = (rule.matching().to_string(), rule.payload.cookie);
            let mut text = format!("{:2}. ", table.0);
            if matching != "any" {
                text += &format!("{matching}, ");
            }
            text += &format!("priority {}", rule.priority);
            if cookie != 0 {
                text += &format!(", cookie {cookie:#x}");
            }
            text
        });
    }

    fn look_up(&mut self, table: TableId) -> Option<&'a Rule<OfRule>> {
        let bridge = self.bridge;
        let classifier = bridge.table(table)?;
        self.looked_up.unite(&self.decided);
        if self.flow_origins == ORIGINAL {
            return classifier.lookup(&self.flow, Some(&mut self.looked_up)).map(|rule| &**rule);
        }
        // Tags are not where they were in the packet.
        let mut seen = FlowWildcards::EMPTY;
        let rule = classifier.lookup(&self.flow, Some(&mut seen)).map(|rule| &**rule);
        let tags = self.tags();
        for (i, slot) in [Slot::Outer, Slot::Inner].into_iter().enumerate() {
            let (tci, tpid) = (seen.get(slot.tci()), seen.get(slot.tpid()));
            seen.0.set(slot.tci(), 0);
            seen.0.set(slot.tpid(), 0);
            if tci | tpid != 0 {
                tag_bits(&mut self.looked_up, self.original, tags.get(i), tci as u16);
                if tpid != 0
                    && let Some(origin) = self.flow_origins[i]
                {
                    self.looked_up.set_field(origin.tpid());
                }
            }
        }
        self.looked_up.unite(&seen);
        rule
    }

    /// Carries out the actions of a rule. Answers the table to go on with.
    fn run_actions(&mut self, rule: &OfRule, rule_ref: RuleRef) -> Option<TableId> {
        if rule.actions.is_empty() {
            self.tracer.add(StepKind::Action, false, || "drop".to_owned());
            self.refuse(Drop::Policy);
        }
        for action in &*rule.actions {
            if self.error.is_some() {
                return None;
            }
            self.tracer.add(StepKind::Action, false, || action.to_string());
            if let OfAction::GotoTable(table) = action {
                return Some(*table);
            }
            self.tracer.enter();
            let go_on = self.run_action(action, rule_ref);
            self.tracer.leave();
            if !go_on {
                return None;
            }
        }
        None
    }

    /// Whether the rule's further actions follow.
    fn run_action(&mut self, action: &OfAction, rule: RuleRef) -> bool {
        match action {
            OfAction::Output(port) => self.output(*port, None, rule),
            OfAction::OutputTruncated { port, max_len } => self.output(*port, Some(*max_len), rule),
            OfAction::Controller { max_len } => self.send_to_controller(*max_len, rule),
            OfAction::SetField { field, value, mask } => {
                if *field == Field::VlanTci && self.flow_origins[0] == Some(Slot::Inner) {
                    self.read_all_tags();
                }
                self.set_field(*field, *value, *mask);
            }
            OfAction::PushVlan { tpid } => self.push_tag(*tpid),
            OfAction::PopVlan => {
                self.read_all_tags();
                let mut tags = self.tags();
                if !tags.is_empty() {
                    tags.remove(0);
                }
                self.set_tags(&tags);
            }
            OfAction::SetVlanVid(vid) => self.set_tag_bits(*vid, VLAN_VID_MASK),
            OfAction::SetVlanPcp(pcp) => self.set_tag_bits(u16::from(*pcp) << 13, 0xe000),
            OfAction::DecTtl => return self.decrement_ttl(),
            OfAction::Resubmit { port, table } => {
                let port = port.filter(|p| *p != OfPort::IN_PORT).unwrap_or(self.in_port());
                let table = table.unwrap_or(rule.table);
                self.deeper(|c| c.run_tables(table, port, true));
            }
            OfAction::GotoTable(_) | OfAction::Note(_) => {}
        }
        true
    }

    fn push_tag(&mut self, tpid: u16) {
        self.read_all_tags();
        let mut tags = self.tags();
        if tags.len() == 2 {
            self.fail(TranslateError::TooManyTags);
            return;
        }
        let tci = tags.first().map_or(0, |outer| outer.tci);
        tags.insert(0, Tag { tpid, tci, origin: None });
        self.set_tags(&tags);
    }

    /// OpenFlow 1.0: sets bits of the outermost tag, which is pushed if there is none.
    fn set_tag_bits(&mut self, value: u16, mask: u16) {
        self.read_tag(0, VLAN_PRESENT);
        if self.tags().is_empty() {
            self.push_tag(TPID_C);
        }
        if self.flow_origins[0] == Some(Slot::Inner) {
            self.read_all_tags();
        }
        self.set_field(Field::VlanTci, value.into(), mask.into());
    }

    fn decrement_ttl(&mut self) -> bool {
        if !matches!(u16::from_be(self.flow.key.eth_type), ETH_IPV4 | ETH_IPV6) {
            return true;
        }
        let ttl = self.read(Field::NwTtl);
        if ttl > 1 {
            self.flow.set(Field::NwTtl, ttl - 1);
            return true;
        }
        self.detail(|| format!("TTL {ttl} would become 0: not forwarded"));
        self.refuse(Drop::Policy);
        false
    }
}
