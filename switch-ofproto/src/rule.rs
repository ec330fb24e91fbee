//! OpenFlow rules.

use std::fmt;
use std::sync::Arc;

use switch_classifier::Rule;

use crate::actions::OfAction;
use crate::bridge::BridgeId;

/// The number of an OpenFlow table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TableId(pub u8);

impl TableId {
    /// 255 is "all tables" in OpenFlow, and 254 the switch's own.
    pub const LAST: TableId = TableId(253);
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a rule within its bridge, never used again for another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RuleId(pub u64);

/// What a rule is besides its priority and match, which the classifier keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfRule {
    pub id: RuleId,
    pub table: TableId,
    pub cookie: u64,
    /// Carried out in order. None: drop.
    pub actions: Arc<[OfAction]>,
}

/// A rule that a packet hit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RuleRef {
    pub bridge: BridgeId,
    pub table: TableId,
    pub priority: i32,
    pub cookie: u64,
    pub id: RuleId,
}

/// A rule's match, priority and actions in one line, as `ovs-ofctl dump-flows` orders them.
pub fn format_rule(rule: &Rule<OfRule>) -> String {
    let mut text = format!("priority={}", rule.priority);
    let matching = rule.matching().to_string();
    if matching != "any" {
        text += &format!(",{matching}");
    }
    let actions: Vec<String> = rule.payload.actions.iter().map(ToString::to_string).collect();
    text += " actions=";
    text += if actions.is_empty() { "drop" } else { "" };
    text + &actions.join(",")
}
