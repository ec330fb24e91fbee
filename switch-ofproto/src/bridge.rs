//! A bridge: its ports, its settings and its OpenFlow tables, at one moment.
//!
//! A `Bridge` is built or changed by the control thread and then published inside a [`crate::Network`]; to
//! change a published one, clone it. The tables are persistent structures, so that a clone costs nothing that
//! grows with the number of rules.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;
use switch_classifier::{Classifier, Match, Rule};
use thiserror::Error;

use crate::actions::{ActionError, OfAction};
use crate::port::{Bundle, OfPort, Port};
use crate::rule::{OfRule, RuleId, TableId};
use crate::vlan::VlanSet;

/// Names a bridge for as long as the daemon runs; never used again for another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BridgeId(pub u32);

/// `Bridge:fail_mode`: what a bridge without a controller does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FailMode {
    /// Switches as if there were no OpenFlow.
    #[default]
    Standalone,
    /// Does what the tables say, which are empty at first.
    Secure,
}

/// Why a bridge refuses a port or a rule.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BridgeError {
    #[error("{port} of {name} is no number for a port")]
    PortNumber { port: OfPort, name: String },
    #[error("OpenFlow port {port} is given to both {first} and {second}")]
    PortTaken { port: OfPort, first: String, second: String },
    #[error("port {0} has no interface")]
    NoMember(String),
    #[error("there is no table {0}: the last is 253")]
    NoTable(u8),
    #[error(transparent)]
    Action(#[from] ActionError),
}

/// See the head of this module.
#[derive(Clone, Debug)]
pub struct Bridge {
    pub id: BridgeId,
    pub name: String,
    pub datapath_id: u64,
    pub fail_mode: FailMode,
    /// `other_config:forward-bpdu`: NORMAL forwards frames to reserved addresses.
    pub forward_bpdu: bool,
    /// VLANs in which NORMAL floods everything and learns nothing.
    pub flood_vlans: VlanSet,
    /// Whether a controller listens; without one, packets to it go nowhere.
    pub has_controller: bool,
    bundles: Vec<Bundle>,
    ports: BTreeMap<OfPort, (Port, usize)>,
    tables: OrdMap<u8, Classifier<OfRule>>,
    next_rule: u64,
}

impl Bridge {
    /// A bridge without ports. Its one rule is `table=0,priority=0,actions=NORMAL`, unless it is secure.
    pub fn new(id: BridgeId, name: impl Into<String>, fail_mode: FailMode) -> Bridge {
        let mut bridge = Bridge {
            id,
            name: name.into(),
            datapath_id: 0,
            fail_mode,
            forward_bpdu: false,
            flood_vlans: VlanSet::empty(),
            has_controller: false,
            bundles: Vec::new(),
            ports: BTreeMap::new(),
            tables: OrdMap::new(),
            next_rule: 1,
        };
        if fail_mode == FailMode::Standalone {
            bridge.put_rule(TableId(0), 0, &Match::ANY, 0, [OfAction::Output(OfPort::NORMAL)].into());
        }
        bridge
    }

    /// Adds a bundle of these ports, whose numbers become its members.
    pub fn add_bundle(&mut self, mut bundle: Bundle, ports: Vec<Port>) -> Result<(), BridgeError> {
        if ports.is_empty() {
            return Err(BridgeError::NoMember(bundle.name));
        }
        for (i, port) in ports.iter().enumerate() {
            if !port.number.is_real() {
                return Err(BridgeError::PortNumber { port: port.number, name: port.name.clone() });
            }
            let taken = self.port(port.number).or(ports[..i].iter().find(|p| p.number == port.number));
            if let Some(first) = taken {
                return Err(BridgeError::PortTaken {
                    port: port.number,
                    first: first.name.clone(),
                    second: port.name.clone(),
                });
            }
        }
        bundle.members = ports.iter().map(|p| p.number).collect();
        let index = self.bundles.len();
        self.bundles.push(bundle);
        self.ports.extend(ports.into_iter().map(|p| (p.number, (p, index))));
        Ok(())
    }

    pub fn port(&self, number: OfPort) -> Option<&Port> {
        self.ports.get(&number).map(|(port, _)| port)
    }

    pub fn port_mut(&mut self, number: OfPort) -> Option<&mut Port> {
        self.ports.get_mut(&number).map(|entry| &mut entry.0)
    }

    pub fn port_named(&self, name: &str) -> Option<&Port> {
        self.ports().find(|p| p.name == name)
    }

    /// The ports, by number.
    pub fn ports(&self) -> impl Iterator<Item = &Port> {
        self.ports.values().map(|(port, _)| port)
    }

    /// The bundle that the port is a member of.
    pub fn bundle_of(&self, number: OfPort) -> Option<&Bundle> {
        self.ports.get(&number).and_then(|(_, index)| self.bundles.get(*index))
    }

    /// In the order in which they were added.
    pub fn bundles(&self) -> &[Bundle] {
        &self.bundles
    }

    /// A table; `None` if it has no rules.
    pub fn table(&self, table: TableId) -> Option<&Classifier<OfRule>> {
        self.tables.get(&table.0)
    }

    /// The tables that have rules, by number.
    pub fn tables(&self) -> impl Iterator<Item = (TableId, &Classifier<OfRule>)> {
        self.tables.iter().map(|(id, table)| (TableId(*id), table))
    }

    /// Adds a rule, or replaces the one of the same table, priority and match. Returns the rule that was there.
    pub fn add_rule(
        &mut self,
        table: TableId,
        priority: u16,
        matching: &Match,
        cookie: u64,
        actions: Vec<OfAction>,
    ) -> Result<Option<Arc<Rule<OfRule>>>, BridgeError> {
        if table > TableId::LAST {
            return Err(BridgeError::NoTable(table.0));
        }
        for action in &actions {
            action.check(table)?;
        }
        Ok(self.put_rule(table, priority.into(), matching, cookie, actions.into()))
    }

    fn put_rule(
        &mut self,
        table: TableId,
        priority: i32,
        matching: &Match,
        cookie: u64,
        actions: Arc<[OfAction]>,
    ) -> Option<Arc<Rule<OfRule>>> {
        let rule = OfRule { id: RuleId(self.next_rule), table, cookie, actions };
        self.next_rule += 1;
        self.tables.entry(table.0).or_default().insert(priority, matching, rule)
    }

    /// Takes out the rule of exactly this table, priority and match.
    pub fn remove_rule(
        &mut self,
        table: TableId,
        priority: u16,
        matching: &Match,
    ) -> Option<Arc<Rule<OfRule>>> {
        let classifier = self.tables.get_mut(&table.0)?;
        let removed = classifier.remove(priority.into(), matching);
        if classifier.is_empty() {
            self.tables.remove(&table.0);
        }
        removed
    }

    /// Takes out all rules.
    pub fn clear_rules(&mut self) {
        self.tables.clear();
    }
}
