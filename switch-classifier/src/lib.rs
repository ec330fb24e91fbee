//! The OpenFlow classifier: which rule of a table a packet hits, and which bits of the packet decided that.
//!
//! Matching only. This crate does no IO, keeps no time and knows no actions: a [`Rule`] carries a payload that
//! it never looks into.
//!
//! * [`flow`]: what a rule can match, the datapath's key and the pipeline's state, and masks of it;
//! * [`fields`]: the one table of fields by name;
//! * [`matching`]: a match, its builder, and how two matches relate;
//! * [`mask`]: a mask stored sparsely, cut into the stages of a look-up;
//! * [`rule`]: a rule as the classifier keeps it;
//! * [`prefix`]: the set of prefixes that a subtable has in one field;
//! * [`subtable`]: all rules of one mask;
//! * [`classifier`]: the table of rules, its versions, and the essay on why its wildcards are right.

pub mod classifier;
pub mod fields;
pub mod flow;
pub mod mask;
pub mod matching;
pub mod prefix;
pub mod rule;
pub mod subtable;

pub use classifier::Classifier;
pub use fields::Field;
pub use flow::{Flow, FlowWildcards};
pub use matching::Match;
pub use rule::Rule;
