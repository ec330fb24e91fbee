//! NORMAL: what a learning switch with VLANs does, as Open vSwitch does it.
//!
//! A packet is given a VLAN by the mode of the port it came in on, its source address is learnt there, and it
//! leaves by the port where its destination was learnt, or by all ports that carry the VLAN, each of which gives
//! it the tags that its mode says. Frames to addresses of bridge protocols are not forwarded.
//!
//! Where it differs from Open vSwitch, on purpose: a priority tag that surrounds another tag does not take that
//! one with it when it is left out, an inner tag without id and priority stays, and ports that are down are not
//! flooded to. A flood serves the ports which take the packet as it came first, then the others grouped by the
//! tags they need: fewer datapath actions, and bits of a tag that is only removed stay out of the mask.

use smallvec::SmallVec;
use switch_classifier::Field;
use switch_common::counter::Drop;
use switch_common::key::{VLAN_PCP_MASK, VLAN_PRESENT, VLAN_VID_MASK};

use super::context::Context;
use super::tags::{Slot, Tag, Tags};
use crate::eth::{is_multicast, is_reserved};
use crate::mac::{Learn, MacDep};
use crate::port::{Bundle, OfPort};
use crate::vlan::{PriorityTags, TPID_C, VlanMode};

/// A tag that a packet has inside the switch, or has not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct InnerTag {
    /// Host order; 0 if there is no such tag.
    tpid: u16,
    /// 0 also if there is no tag.
    vid: u16,
    /// In the bits of a TCI. That of `origin`, if there is one, and not part of the mask yet.
    pcp: u16,
    origin: Option<Slot>,
}

/// The tags of a packet between ports: the first says its VLAN.
#[derive(Clone, Copy, Debug, Default)]
struct InnerTags {
    outer: InnerTag,
    inner: InnerTag,
    /// `inner` does not depend on the packet's own inner tag.
    inner_is_fixed: bool,
}

impl From<&Tag> for InnerTag {
    fn from(tag: &Tag) -> InnerTag {
        InnerTag { tpid: tag.tpid, vid: tag.vid(), pcp: tag.pcp_bits(), origin: tag.origin }
    }
}

impl InnerTags {
    fn of(tags: &Tags) -> InnerTags {
        let tag = |i: usize| tags.get(i).map(InnerTag::from).unwrap_or_default();
        InnerTags { outer: tag(0), inner: tag(1), inner_is_fixed: false }
    }

    fn pop(&mut self) {
        self.outer = self.inner;
        self.inner = InnerTag::default();
    }
}

/// Bundles by which a packet leaves with the same tags.
type Group<'a> = (Tags, SmallVec<[&'a Bundle; 8]>);

impl Context<'_> {
    /// The action NORMAL.
    pub fn normal(&mut self) {
        let bridge = self.bridge;
        self.read(Field::EthSrc);
        self.read(Field::EthDst);
        self.read_tag(0, VLAN_VID_MASK | VLAN_PRESENT);

        let tags = self.tags();
        let in_port = self.in_port();
        let input = bridge.bundle_of(in_port);
        if input.is_none() && !matches!(in_port, OfPort::NONE | OfPort::CONTROLLER) {
            self.detail(|| "no input bundle, dropping".to_owned());
            return self.refuse(Drop::NoPort);
        }
        if u16::from_be(self.flow.key.eth_type) == TPID_C && tags.is_empty() {
            self.warn(|| "dropping packet with partial VLAN tag".to_owned());
            return self.refuse(Drop::VlanFilter);
        }
        let vid = tags.first().map_or(0, Tag::vid);
        let mut inside = InnerTags::of(&tags);
        if let Some(input) = input {
            if !input.vlan.admits(vid) {
                self.detail(|| "disallowed VLAN VID for this input port, dropping".to_owned());
                return self.refuse(Drop::VlanFilter);
            }
            self.translate_input(&input.vlan, &mut inside);
        }
        let vlan = inside.outer.vid;
        let destination = self.flow.key.eth_dst;
        if !bridge.forward_bpdu && is_reserved(&destination) {
            self.detail(|| "packet has reserved destination MAC, dropping".to_owned());
            return self.refuse(Drop::Reserved);
        }

        let learns = !bridge.flood_vlans.contains(vlan);
        let source = self.flow.key.eth_src;
        if learns
            && !is_multicast(&source)
            && let Some(port) = input.and_then(Bundle::face)
        {
            self.learns.push(Learn { bridge: bridge.id, vlan, mac: source, port });
        }

        if !learns || is_multicast(&destination) {
            self.detail(|| "no learned MAC for destination, flooding".to_owned());
            return self.flood(input, &inside);
        }
        let seen = self.macs.port_of(bridge.id, vlan, &destination);
        self.deps.push(MacDep { bridge: bridge.id, vlan, mac: destination, seen });
        let Some(port) = seen else {
            self.detail(|| "no learned MAC for destination, flooding".to_owned());
            return self.flood(input, &inside);
        };
        match bridge.bundle_of(port) {
            None => {
                self.detail(|| "learned port is unknown, dropping".to_owned());
                self.refuse(Drop::NoOutput);
            }
            Some(out) if input.is_some_and(|input| std::ptr::eq(input, out)) => {
                self.detail(|| "learned port is input port, dropping".to_owned());
                self.refuse(Drop::Hairpin);
            }
            Some(out) if out.protected && input.is_some_and(|input| input.protected) => {
                self.detail(|| "learned port is protected, dropping".to_owned());
                self.refuse(Drop::Policy);
            }
            Some(out) => {
                self.detail(|| "forwarding to learned port".to_owned());
                let tags = self.translate_output(out, &inside);
                self.output_to_bundles(&[out], &tags);
            }
        }
    }

    fn flood(&mut self, input: Option<&Bundle>, inside: &InnerTags) {
        let bridge = self.bridge;
        let mut groups: SmallVec<[Group; 4]> = SmallVec::new();
        groups.push((self.tags(), SmallVec::new()));
        for out in bridge.bundles() {
            if input.is_some_and(|input| std::ptr::eq(input, out) || (input.protected && out.protected))
                || !out.members.iter().any(|member| bridge.port(*member).is_some_and(|p| p.up && p.flood))
                || !self.carries(&out.vlan, inside)
            {
                continue;
            }
            let tags = self.translate_output(out, inside);
            match groups.iter_mut().find(|(t, _)| *t == tags) {
                Some((_, outs)) => outs.push(out),
                None => groups.push((tags, SmallVec::from_iter([out]))),
            }
        }
        for (tags, outs) in &groups {
            self.output_to_bundles(outs, tags);
        }
        // If nobody was flooded to.
        self.refuse(Drop::Hairpin);
    }

    /// The tags that a packet has inside the switch.
    fn translate_input(&mut self, mode: &VlanMode, tags: &mut InnerTags) {
        let native = |outer: &mut InnerTag, tag: u16| {
            *outer = InnerTag { tpid: TPID_C, vid: tag, ..*outer };
        };
        match mode {
            VlanMode::Trunk { .. } => {}
            VlanMode::Access { tag } => {
                self.read_inner(0);
                self.read_tpid(tags.outer.origin);
                native(&mut tags.outer, *tag);
                tags.inner = InnerTag::default();
                tags.inner_is_fixed = true;
            }
            VlanMode::NativeTagged { tag, .. } | VlanMode::NativeUntagged { tag, .. } => {
                if tags.outer.vid == 0 {
                    self.read_tpid(tags.outer.origin);
                    native(&mut tags.outer, *tag);
                }
            }
            VlanMode::Dot1qTunnel { tag, tpid, .. } => {
                self.read_inner(0);
                tags.inner = tags.outer;
                tags.outer = InnerTag { tpid: *tpid, vid: *tag, ..InnerTag::default() };
                tags.inner_is_fixed = true;
            }
        }
    }

    /// Whether a packet with these tags leaves by a port of this mode, if it is flooded.
    fn carries(&mut self, mode: &VlanMode, tags: &InnerTags) -> bool {
        if !mode.carries(tags.outer.vid) {
            return false;
        }
        let read_inner = |c: &mut Self| {
            if !tags.inner_is_fixed {
                c.read_inner(VLAN_VID_MASK);
            }
            tags.inner.vid
        };
        match mode {
            VlanMode::Access { .. } => read_inner(self) == 0,
            VlanMode::Dot1qTunnel { cvlans, .. } => cvlans.is_all() || cvlans.contains(read_inner(self)),
            _ => true,
        }
    }

    /// The tags with which a packet leaves by the bundle.
    fn translate_output(&mut self, out: &Bundle, inside: &InnerTags) -> Tags {
        let mut tags = *inside;
        match &out.vlan {
            VlanMode::Access { .. } => {
                if !tags.inner_is_fixed {
                    self.read_inner(0);
                }
                tags = InnerTags { inner_is_fixed: true, ..InnerTags::default() };
            }
            VlanMode::Trunk { .. } | VlanMode::NativeTagged { .. } => {}
            VlanMode::NativeUntagged { tag, .. } if tags.outer.vid != *tag => {}
            VlanMode::NativeUntagged { .. } | VlanMode::Dot1qTunnel { .. } => {
                if out.priority_tags != PriorityTags::Never && !tags.inner_is_fixed {
                    self.read_inner(0);
                }
                tags.pop();
            }
        }
        if out.priority_tags != PriorityTags::Never {
            self.copy_priority(&mut tags.outer);
        }
        [tags.outer, tags.inner]
            .into_iter()
            .filter_map(|tag| self.write_tag(tag, out.priority_tags))
            .collect()
    }

    /// A port with priority tags gets the priority that the packet came with.
    fn copy_priority(&mut self, outer: &mut InnerTag) {
        let came_with = self.tags().first().copied();
        let origin = came_with.and_then(|tag| tag.origin);
        if origin.is_some() && outer.origin == origin {
            return;
        }
        let pcp = came_with.map_or(0, |tag| tag.pcp_bits());
        if outer.tpid == 0 && outer.origin.is_none() {
            outer.pcp = pcp;
            outer.origin = origin;
            self.read_tpid(origin);
            if came_with.is_some_and(|tag| tag.tpid != TPID_C) {
                // It will be another tag.
                self.read_origin(origin, VLAN_PCP_MASK);
                outer.origin = None;
            }
        } else {
            self.read_origin(origin, VLAN_PCP_MASK);
            self.read_whole_origin(outer.origin);
            *outer = InnerTag { pcp, origin: None, ..*outer };
        }
    }

    /// The tag in a frame; none for one that says nothing.
    fn write_tag(&mut self, tag: InnerTag, priority_tags: PriorityTags) -> Option<Tag> {
        let InnerTag { tpid, vid, pcp, origin } = tag;
        if vid == 0 && origin != Some(Slot::Inner) {
            self.read_origin(origin, VLAN_PCP_MASK);
            if pcp == 0 && (priority_tags != PriorityTags::Always || tpid == 0) {
                return None;
            }
        }
        Some(Tag { tpid: if tpid == 0 { TPID_C } else { tpid }, tci: vid | pcp, origin })
    }

    /// The answer depends on the TPID of a tag of the packet, if the tag was one.
    fn read_tpid(&mut self, origin: Option<Slot>) {
        if let Some(slot) = origin {
            self.decided.set_field(slot.tpid());
        }
    }

    /// Sends the packet with these tags to each bundle; the pipeline's packet stays as it is.
    fn output_to_bundles(&mut self, outs: &[&Bundle], tags: &Tags) {
        let bridge = self.bridge;
        let (key, origins) = (self.flow.key, self.flow_origins);
        self.set_tags(tags);
        for out in outs {
            let up = out.members.iter().find(|member| bridge.port(**member).is_some_and(|p| p.up));
            if let Some(port) = up.copied().or(out.face()) {
                self.output_to(port, None);
            }
        }
        (self.flow.key, self.flow_origins) = (key, origins);
    }
}
