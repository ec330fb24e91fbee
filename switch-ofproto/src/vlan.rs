//! Sets of VLANs, and how a port treats VLAN tags.
//!
//! Modes and their rules are those of Open vSwitch's `Port` table (`vlan_mode`, `tag`, `trunks`, `cvlans`,
//! `other_config:priority-tags`, `other_config:qinq-ethtype`).

use std::fmt;
use std::sync::Arc;

use switch_common::key::VLAN_VID_MASK;

/// TPID of an IEEE 802.1Q C-tag.
pub const TPID_C: u16 = 0x8100;
/// TPID of an IEEE 802.1ad S-tag.
pub const TPID_S: u16 = 0x88a8;

/// A set of VLAN ids, 0 (which stands for "no VLAN") to 4095. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct VlanSet(
    /// A bit for each id; `None` for all of them.
    Option<Arc<[u64; 64]>>,
);

impl VlanSet {
    pub const ALL: VlanSet = VlanSet(None);

    pub fn empty() -> VlanSet {
        VlanSet(Some(Arc::new([0; 64])))
    }

    /// Whether it holds every id.
    pub fn is_all(&self) -> bool {
        self.0.as_ref().is_none_or(|bits| bits.iter().all(|word| *word == !0))
    }

    pub fn contains(&self, vid: u16) -> bool {
        match &self.0 {
            None => true,
            Some(bits) => bits[usize::from(vid & VLAN_VID_MASK) / 64] >> (vid % 64) & 1 == 1,
        }
    }

    /// Adds an id; bits past the twelfth are ignored.
    pub fn insert(&mut self, vid: u16) {
        if let Some(bits) = &mut self.0 {
            Arc::make_mut(bits)[usize::from(vid & VLAN_VID_MASK) / 64] |= 1 << (vid % 64);
        }
    }

    pub fn remove(&mut self, vid: u16) {
        let bits = self.0.get_or_insert_with(|| Arc::new([!0; 64]));
        Arc::make_mut(bits)[usize::from(vid & VLAN_VID_MASK) / 64] &= !(1 << (vid % 64));
    }

    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0..=VLAN_VID_MASK).filter(|vid| self.contains(*vid))
    }
}

impl FromIterator<u16> for VlanSet {
    fn from_iter<I: IntoIterator<Item = u16>>(ids: I) -> VlanSet {
        let mut set = VlanSet::empty();
        for vid in ids {
            set.insert(vid);
        }
        set
    }
}

impl fmt::Debug for VlanSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_all() { f.write_str("all") } else { f.debug_set().entries(self.iter()).finish() }
    }
}

/// How a port treats tags. Made by the constructors, which bring it into the form that the rules below need.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VlanMode {
    /// Untagged frames only, which are in VLAN `tag`.
    Access { tag: u16 },
    /// Tagged frames of these VLANs; untagged ones are in VLAN 0.
    Trunk { trunks: VlanSet },
    /// A trunk on which untagged frames are in VLAN `tag`, and frames of that VLAN leave with their tag.
    NativeTagged { tag: u16, trunks: VlanSet },
    /// The same, but frames of VLAN `tag` leave without the tag.
    NativeUntagged { tag: u16, trunks: VlanSet },
    /// IEEE 802.1ad customer port: every frame gets a tag of VLAN `tag` around it, with TPID `tpid`, if its own
    /// VLAN is one of `cvlans`.
    Dot1qTunnel { tag: u16, tpid: u16, cvlans: VlanSet },
}

impl Default for VlanMode {
    /// A trunk of all VLANs, as a port is that nobody configured.
    fn default() -> VlanMode {
        VlanMode::trunk(VlanSet::ALL)
    }
}

impl VlanMode {
    pub fn access(tag: u16) -> VlanMode {
        VlanMode::Access { tag: tag & VLAN_VID_MASK }
    }

    pub fn trunk(trunks: VlanSet) -> VlanMode {
        VlanMode::Trunk { trunks }
    }

    pub fn native_tagged(tag: u16, trunks: VlanSet) -> VlanMode {
        let tag = tag & VLAN_VID_MASK;
        VlanMode::NativeTagged { tag, trunks: native_trunks(tag, trunks) }
    }

    pub fn native_untagged(tag: u16, trunks: VlanSet) -> VlanMode {
        let tag = tag & VLAN_VID_MASK;
        VlanMode::NativeUntagged { tag, trunks: native_trunks(tag, trunks) }
    }

    /// `tpid` in host order, [`TPID_C`] or [`TPID_S`].
    pub fn dot1q_tunnel(tag: u16, tpid: u16, cvlans: VlanSet) -> VlanMode {
        VlanMode::Dot1qTunnel { tag: tag & VLAN_VID_MASK, tpid, cvlans }
    }

    /// Whether the port admits a frame whose outermost tag has this id, 0 standing for no tag as well.
    pub fn admits(&self, vid: u16) -> bool {
        match self {
            VlanMode::Access { .. } => vid == 0,
            VlanMode::Trunk { trunks } => trunks.contains(vid),
            VlanMode::NativeTagged { trunks, .. } | VlanMode::NativeUntagged { trunks, .. } => {
                vid == 0 || trunks.contains(vid)
            }
            VlanMode::Dot1qTunnel { cvlans, .. } => cvlans.contains(vid),
        }
    }

    /// Whether frames of this VLAN leave by the port, as far as the outermost id says it.
    pub fn carries(&self, vid: u16) -> bool {
        match self {
            VlanMode::Access { tag } | VlanMode::Dot1qTunnel { tag, .. } => vid == *tag,
            VlanMode::Trunk { trunks }
            | VlanMode::NativeTagged { trunks, .. }
            | VlanMode::NativeUntagged { trunks, .. } => trunks.contains(vid),
        }
    }
}

/// A native VLAN is always carried, and then no frame is in VLAN 0.
fn native_trunks(tag: u16, mut trunks: VlanSet) -> VlanSet {
    if tag != 0 {
        trunks.insert(tag);
        trunks.remove(0);
    }
    trunks
}

/// `other_config:priority-tags`: whether a frame of VLAN 0 leaves with a tag that holds only a priority.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PriorityTags {
    #[default]
    Never,
    /// If the priority is not 0.
    IfNonzero,
    /// Also with priority 0, if the frame came with a tag.
    Always,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets() {
        let mut set: VlanSet = [0, 10, 4095].into_iter().collect();
        assert!(set.contains(0) && set.contains(10) && set.contains(4095) && !set.contains(11));
        set.remove(10);
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 4095]);
        let mut all = VlanSet::ALL;
        all.insert(5);
        assert!(all.is_all());
        all.remove(5);
        assert!(!all.is_all() && !all.contains(5) && all.contains(6));
        all.insert(5);
        assert!(all.is_all());
    }

    #[test]
    fn native_vlan_is_forced() {
        let mode = VlanMode::native_tagged(10, [0, 20].into_iter().collect());
        assert!(
            mode.carries(10) && mode.carries(20) && !mode.carries(0) && mode.admits(0) && !mode.admits(30)
        );
        assert!(VlanMode::native_untagged(0, VlanSet::ALL).carries(0));
        assert!(!VlanMode::access(10).admits(10));
    }
}
