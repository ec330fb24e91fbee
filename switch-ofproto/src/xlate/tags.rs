//! VLAN tags of a packet in translation, and where they came from.
//!
//! NORMAL moves, drops and rewrites tags on most packets without looking at all of their bits. For the mask to
//! stay wide, a tag carries its origin: which of the packet's own tags it was, if any. Two tags of one origin
//! differ only in bits that translation wrote or read, so comparing them needs no further bits of the packet;
//! pushing such a tag does, since the datapath pushes a constant.

use smallvec::SmallVec;
use switch_classifier::{Field, FlowWildcards};
use switch_common::key::{FlowKey, FlowMask, VLAN_PCP_MASK, VLAN_PRESENT, VLAN_VID_MASK};
use switch_dpif::action::{DpAction, Layer, Set};

use super::context::Context;
use crate::vlan::TPID_C;

/// Which of the packet's own tags each tag of a key is.
pub(super) type Origins = [Option<Slot>; 2];

/// A place for a tag in a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Slot {
    Outer,
    Inner,
}

/// The origins of a packet's tags when it came.
pub(super) const ORIGINAL: Origins = [Some(Slot::Outer), Some(Slot::Inner)];

impl Slot {
    pub fn tci(self) -> Field {
        match self {
            Slot::Outer => Field::VlanTci,
            Slot::Inner => Field::InnerTci,
        }
    }

    pub fn tpid(self) -> Field {
        match self {
            Slot::Outer => Field::VlanTpid,
            Slot::Inner => Field::InnerTpid,
        }
    }

    /// Adds bits (host order) of the tag's TCI to a mask: what [`FlowWildcards::set_bits`] does, but often.
    fn add_tci(self, mask: &mut FlowWildcards, bits: u16) {
        match self {
            Slot::Outer => mask.0.key.vlan_tci |= bits.to_be(),
            Slot::Inner => mask.0.key.inner_tci |= bits.to_be(),
        }
    }
}

/// A tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tag {
    /// Host order.
    pub tpid: u16,
    /// VLAN id and priority, host order, without `VLAN_PRESENT`.
    pub tci: u16,
    pub origin: Option<Slot>,
}

impl Tag {
    pub fn vid(&self) -> u16 {
        self.tci & VLAN_VID_MASK
    }

    pub fn pcp_bits(&self) -> u16 {
        self.tci & VLAN_PCP_MASK
    }
}

/// The tags of a packet, outermost first.
pub(super) type Tags = SmallVec<[Tag; 2]>;

/// The tags of a key. A tag is there if the one around it is.
pub(super) fn read_tags(key: &FlowKey, origins: &Origins) -> Tags {
    let slots = [(key.vlan_tci, key.vlan_tpid), (key.inner_tci, key.inner_tpid)];
    let tag = |((tci, tpid), origin): ((u16, u16), &Option<Slot>)| {
        let (tci, tpid) = (u16::from_be(tci), u16::from_be(tpid));
        (tci & VLAN_PRESENT != 0).then_some(Tag {
            tpid: if tpid == 0 { TPID_C } else { tpid },
            tci: tci & (VLAN_VID_MASK | VLAN_PCP_MASK),
            origin: *origin,
        })
    };
    slots.into_iter().zip(origins).map_while(tag).collect()
}

/// Gives a key these tags, of which it can hold two.
pub(super) fn write_tags(key: &mut FlowKey, origins: &mut Origins, tags: &[Tag]) {
    let place = |tag: Option<&Tag>| match tag {
        None => (0, 0, None),
        Some(tag) => {
            let tpid = if tag.tpid == TPID_C { 0 } else { tag.tpid };
            ((tag.tci | VLAN_PRESENT).to_be(), tpid.to_be(), tag.origin)
        }
    };
    (key.vlan_tci, key.vlan_tpid, origins[0]) = place(tags.first());
    (key.inner_tci, key.inner_tpid, origins[1]) = place(tags.get(1));
}

/// Adds to a mask how many tags a packet has, and these bits of the inner one.
fn inner_bits(mask: &mut FlowWildcards, original: &FlowKey, tci_bits: u16) {
    Slot::Outer.add_tci(mask, VLAN_PRESENT);
    if is_tagged(original) {
        Slot::Inner.add_tci(mask, tci_bits | VLAN_PRESENT);
    }
}

/// Adds to a mask whether there is a tag, and these bits of it.
pub(super) fn tag_bits(mask: &mut FlowWildcards, original: &FlowKey, tag: Option<&Tag>, tci_bits: u16) {
    match tag {
        Some(tag) => {
            if let Some(slot) = tag.origin {
                slot.add_tci(mask, tci_bits | VLAN_PRESENT);
            }
        }
        None => {
            inner_bits(mask, original, 0);
            if !is_tagged(original) {
                // The same bits as of a packet with a tag, so that both can share a mask.
                Slot::Outer.add_tci(mask, tci_bits | VLAN_PRESENT);
            }
        }
    }
}

fn is_tagged(key: &FlowKey) -> bool {
    u16::from_be(key.vlan_tci) & VLAN_PRESENT != 0
}

impl Context<'_> {
    pub fn tags(&self) -> Tags {
        read_tags(&self.flow.key, &self.flow_origins)
    }

    pub fn set_tags(&mut self, tags: &[Tag]) {
        write_tags(&mut self.flow.key, &mut self.flow_origins, tags);
    }

    /// The answer depends on these bits (host order) of a tag of the packet, if the tag was one.
    pub fn read_origin(&mut self, origin: Option<Slot>, tci_bits: u16) {
        if let Some(slot) = origin {
            slot.add_tci(&mut self.decided, tci_bits);
        }
    }

    /// The answer depends on whether the pipeline's packet has such a tag (0 for the outermost), and on these bits
    /// of it.
    pub fn read_tag(&mut self, index: usize, tci_bits: u16) {
        let tags = self.tags();
        tag_bits(&mut self.decided, self.original, tags.get(index), tci_bits);
    }

    /// The answer depends on all of a tag of the packet, if the tag was one.
    pub fn read_whole_origin(&mut self, origin: Option<Slot>) {
        if let Some(slot) = origin {
            self.decided.set_field(slot.tci());
            self.decided.set_field(slot.tpid());
        }
    }

    /// The answer depends on how many tags the packet came with, and on these bits of the inner one.
    pub fn read_inner(&mut self, tci_bits: u16) {
        inner_bits(&mut self.decided, self.original, tci_bits);
    }

    /// The answer depends on everything about the packet's tags, so that they can be treated as constants.
    pub fn read_all_tags(&mut self) {
        let count = read_tags(self.original, &ORIGINAL).len();
        self.read_inner(0);
        for slot in [Slot::Outer, Slot::Inner].into_iter().take(count) {
            self.read_whole_origin(Some(slot));
        }
        let tags: Tags = self.tags().iter().map(|tag| Tag { origin: None, ..*tag }).collect();
        self.set_tags(&tags);
    }

    /// Whether every bit of the tag is known.
    fn is_known(&self, tag: &Tag) -> bool {
        tag.origin.is_none_or(|slot| {
            let whole = |field: Field| self.decided.get(field) == field.info().ones();
            whole(slot.tci()) && whole(slot.tpid())
        })
    }

    /// Whether the tags are the same in every packet of this megaflow.
    fn are_one(&self, a: &Tag, b: &Tag) -> bool {
        a.tpid == b.tpid && a.tci == b.tci && self.are_comparable(a, b)
    }

    fn are_comparable(&self, a: &Tag, b: &Tag) -> bool {
        (a.origin.is_some() && a.origin == b.origin) || (self.is_known(a) && self.is_known(b))
    }

    /// Adds the datapath actions that give the packet the tags that the pipeline sees.
    pub fn commit_tags(&mut self) {
        let wanted = self.tags();
        let there = read_tags(&self.base, &self.base_origins);
        if wanted == there {
            return;
        }
        let pairs = wanted.iter().rev().zip(there.iter().rev());
        let common = pairs.take_while(|(a, b)| self.are_one(a, b)).count();
        let push = &wanted[..wanted.len() - common];
        let pop = &there[..there.len() - common];
        match (push, pop) {
            ([], []) => {}
            ([to], [from]) if to.tpid == from.tpid && self.are_comparable(to, from) => self.rewrite(from, to),
            _ => {
                for tag in pop {
                    self.read_origin(tag.origin, VLAN_PRESENT);
                    self.emit(DpAction::PopVlan);
                }
                for tag in push.iter().rev() {
                    self.read_whole_origin(tag.origin);
                    self.emit(DpAction::PushVlan { tpid: tag.tpid, tci: tag.tci });
                }
            }
        }
        write_tags(&mut self.base, &mut self.base_origins, &wanted);
    }

    /// Changes the outermost tag, where it stays the same tag: only in bits that are known.
    fn rewrite(&mut self, from: &Tag, to: &Tag) {
        let bits = match to.origin.filter(|_| to.origin == from.origin) {
            None => VLAN_VID_MASK | VLAN_PCP_MASK,
            Some(slot) => {
                self.read_origin(to.origin, from.tci ^ to.tci);
                self.decided.get(slot.tci()) as u16 & (VLAN_VID_MASK | VLAN_PCP_MASK)
            }
        };
        let mut mask = FlowKey::ZERO;
        mask.vlan_tci = bits.to_be();
        let mut value = FlowKey::ZERO;
        value.vlan_tci = to.tci.to_be();
        self.emit(DpAction::Set(Set::new(Layer::Vlan, &value, &FlowMask(mask))));
    }
}
