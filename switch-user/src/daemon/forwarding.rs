//! From a packet that the datapath did not know to an installed flow: the decision that all handlers share.
//!
//! [`Forwarding::resolve`] looks for a flow that another packet has had installed meanwhile, else translates,
//! teaches the MAC table, and installs. It holds the flow index's lock while it installs, and only installs
//! what is still true then: see [`super::flows`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use crossbeam_channel::{Sender, TrySendError};
use hashbrown::HashMap;
use switch_common::flow::FlowStats;
use switch_common::key::FlowKey;
use switch_dpif::action::{DpAction, DpPort};
use switch_dpif::datapath::{Datapath, DatapathError, FlowId};
use switch_ofproto::mac::{Learn, MacChange, MacDep};
use switch_ofproto::{MacTables, Network, TranslateOptions, Translation, xlate};

use super::clock::Clock;
use super::flows::{FlowIndex, Flows, Installed};

/// Translations of one packet that may be overtaken by changes before it is forwarded without a flow.
const ATTEMPTS: usize = 4;

/// Counts of the miss path, for `show`.
#[derive(Default, Debug)]
pub struct UpcallCounters {
    pub received: AtomicU64,
    pub translated: AtomicU64,
    pub installed: AtomicU64,
    pub joined: AtomicU64,
    pub install_failed: AtomicU64,
    pub protocol: AtomicU64,
    pub ring_dropped: AtomicU64,
    pub queue_full: AtomicU64,
    pub send_failed: AtomicU64,
    pub revalidations: AtomicU64,
    pub expired: AtomicU64,
    pub corrected: AtomicU64,
    pub removed: AtomicU64,
}

/// One version of everything that forwarding reads: replaced whole by the control thread.
pub struct View {
    pub network: Network,
    /// Interfaces behind the datapath's ports.
    pub ifindexes: HashMap<DpPort, u32>,
    pub flow_limit: usize,
    pub max_idle_ms: u64,
    pub vlan_limit: u8,
}

/// What translation and installation need, shared by all threads.
pub struct Forwarding {
    pub view: ArcSwap<View>,
    pub macs: MacTables,
    pub datapath: Arc<dyn Datapath>,
    pub flows: FlowIndex,
    pub clock: Arc<dyn Clock>,
    pub counters: UpcallCounters,
    /// MAC table entries that changed: the revalidator corrects the flows that depend on them.
    pub changed: Sender<MacChange>,
    /// More entries changed than the channel holds: all flows are to be looked at.
    pub overflowed: AtomicBool,
    /// Wakes the revalidator when a new view was published.
    pub wake: Sender<()>,
}

impl Forwarding {
    /// Decides what to do with a packet that came up as a miss, and sees to it that the next one like it hits.
    pub fn resolve(&self, key: &FlowKey) -> Arc<[DpAction]> {
        let mut seen = self.counters.installed.load(Ordering::Acquire);
        if let Some(actions) = self.installed_actions(key) {
            self.counters.joined.fetch_add(1, Ordering::Relaxed);
            return actions;
        }
        for _ in 0..ATTEMPTS {
            let view = self.view.load();
            let translation = self.translate(&view, key);
            self.learn(&translation.learns);
            let mut flows = self.flows.lock();
            if !self.still_true(view.network.version(), &translation.deps) {
                continue;
            }
            // Another handler may have been quicker, if any has installed anything at all meanwhile.
            let installed = self.counters.installed.load(Ordering::Acquire);
            if std::mem::replace(&mut seen, installed) != installed
                && let Some(id) = self.datapath.lookup(key)
                && let Some(flow) = flows.get(id)
            {
                self.counters.joined.fetch_add(1, Ordering::Relaxed);
                return Arc::clone(&flow.actions);
            }
            let actions: Arc<[DpAction]> = translation.actions.as_slice().into();
            if self.datapath.flow_count() < view.flow_limit {
                self.install(&mut flows, key, translation, Arc::clone(&actions));
            } else {
                self.counters.install_failed.fetch_add(1, Ordering::Relaxed);
            }
            return actions;
        }
        // Things change faster than packets are translated: this one is forwarded as they stood a moment ago.
        self.translate(&self.view.load(), key).actions.into()
    }

    /// What the tables say of a packet now.
    pub fn translate(&self, view: &View, key: &FlowKey) -> Translation {
        self.counters.translated.fetch_add(1, Ordering::Relaxed);
        xlate::translate(&view.network, &self.macs, DpPort(key.in_port), key, &TranslateOptions::default())
    }

    /// The actions of the flow that a packet with this key would hit now.
    pub fn installed_actions(&self, key: &FlowKey) -> Option<Arc<[DpAction]>> {
        let id = self.datapath.lookup(key)?;
        self.flow_actions(id)
    }

    pub fn flow_actions(&self, id: FlowId) -> Option<Arc<[DpAction]>> {
        self.flows.lock().get(id).map(|flow| Arc::clone(&flow.actions))
    }

    /// Whether a translation against that version and those MAC table entries would still come out the same.
    /// Only an answer if the flow index is locked.
    pub fn still_true(&self, version: u64, deps: &[MacDep]) -> bool {
        self.view.load().network.version() == version && deps.iter().all(|dep| self.macs.holds(dep))
    }

    /// Whether a lesson only says what the MAC table says already, or something about an address that it does not
    /// know. Statistics teach nothing else: that an address moved must be told by a packet.
    pub fn is_here(&self, lesson: &Learn) -> bool {
        let known = self.macs.table(lesson.bridge).lookup(lesson.vlan, &lesson.mac);
        known.is_none_or(|port| port == lesson.port)
    }

    /// Carries a translation's lessons out, and has the flows that depended on what they change looked at again,
    /// soon.
    pub fn learn(&self, learns: &[Learn]) {
        self.mac_changed(self.macs.apply(learns, self.clock.now_ms()));
    }

    /// Has the revalidator look at the flows that these changes concern. Most changes, new addresses, concern none,
    /// and waking a thread for each would cost more than translating the packet that brought it.
    pub fn mac_changed(&self, mut changes: Vec<MacChange>) {
        if changes.is_empty() {
            return;
        }
        {
            let flows = self.flows.lock();
            changes.retain(|change| flows.concerns(change));
        }
        for change in changes {
            if let Err(TrySendError::Full(_)) = self.changed.try_send(change) {
                self.overflowed.store(true, Ordering::Release);
            }
        }
    }

    /// Replaces what translation reads. The revalidator follows.
    pub fn publish(&self, view: View) {
        self.view.store(Arc::new(view));
        // Full: it is about to wake anyway.
        let _ = self.wake.try_send(());
    }

    fn install(&self, flows: &mut Flows, key: &FlowKey, translation: Translation, actions: Arc<[DpAction]>) {
        match self.datapath.put_flow(key, &translation.mask, &actions) {
            Ok(id) => {
                let flow = Installed {
                    actions,
                    learns: translation.learns.into_iter().collect(),
                    deps: translation.deps.into_iter().collect(),
                    rules: translation.rules.into_iter().collect(),
                    base: FlowStats::default(),
                    seen_packets: 0,
                    used_at: self.datapath.now_ms(),
                };
                flows.insert(id, flow);
                self.counters.installed.fetch_add(1, Ordering::Release);
            }
            Err(error) => {
                self.counters.install_failed.fetch_add(1, Ordering::Relaxed);
                note_refusal(&error);
            }
        }
    }

    /// Interface index of an output port, if it can be sent to.
    pub fn ifindex(&self, port: DpPort) -> Option<u32> {
        self.view.load().ifindexes.get(&port).copied()
    }
}

/// A full table is expected under load and counted; anything else is worth a line.
fn note_refusal(error: &DatapathError) {
    match error {
        DatapathError::FlowTableFull { .. }
        | DatapathError::MasksExhausted { .. }
        | DatapathError::ActionsFull { .. } => {
            tracing::debug!(%error, "flow not installed");
        }
        _ => tracing::warn!(%error, "flow not installed"),
    }
}
