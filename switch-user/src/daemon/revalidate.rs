//! The revalidator: keeps installed flows true and lets idle ones go.
//!
//! * A MAC table entry changed: the flows that looked it up are translated again, at once.
//! * A new version of the configuration was published: every flow is, in slices, the lock free in between.
//! * Twice a second (more rarely when there are very many) every flow's statistics are read: traffic keeps its MAC table entries young, and a flow
//!   without any goes after `max_idle` (sooner when the table is over its limit).
//!
//! A flow is corrected in place if only its actions are others now; if its translation asks for bits that its
//! mask does not have, it is withdrawn, and its next packet makes a new one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, select};
use hashbrown::HashSet;
use switch_common::key::FlowMask;
use switch_dpif::action::DpAction;
use switch_dpif::datapath::FlowId;
use switch_ofproto::mac::{Change, MacChange};

use super::flows::Installed;
use super::forwarding::Forwarding;

/// Time between two sweeps, if they are short.
const SWEEP: Duration = Duration::from_millis(500);
/// A sweep is followed by a pause of so many times its length: it takes a twentieth of a CPU at most.
const SWEEP_SHARE: u32 = 20;
/// But not longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// Flows handled while the lock is held once.
const SLICE: usize = 256;
/// Sweeps between two orderings of the masks.
const SWEEPS_PER_SORT: u64 = 8;
/// How often one flow is translated again before it is simply withdrawn.
const ATTEMPTS: usize = 3;

/// Counts complete passes over all flows, so that the control thread can wait for one.
#[derive(Default, Debug)]
pub struct Passes {
    /// Version of the configuration that every installed flow conforms to.
    pub conforming: AtomicU64,
}

pub struct Revalidator {
    forwarding: Arc<Forwarding>,
    changed: Receiver<MacChange>,
    published: Receiver<()>,
    passes: Arc<Passes>,
}

impl Revalidator {
    pub fn new(
        forwarding: Arc<Forwarding>,
        changed: Receiver<MacChange>,
        published: Receiver<()>,
        passes: Arc<Passes>,
    ) -> Revalidator {
        Revalidator { forwarding, changed, published, passes }
    }

    /// Works until `stop` is set.
    pub fn run(self, stop: &AtomicBool) {
        let mut sweeps = 0u64;
        let mut next_sweep = Instant::now() + SWEEP;
        while !stop.load(Ordering::Relaxed) {
            let wait = next_sweep.saturating_duration_since(Instant::now());
            select! {
                recv(self.changed) -> change => match change {
                    Ok(change) => self.follow_macs(change),
                    Err(_) => return,
                },
                recv(self.published) -> _ => {}
                default(wait) => {}
            }
            let version = self.forwarding.view.load().network.version();
            let overflowed = self.forwarding.overflowed.swap(false, Ordering::AcqRel);
            if overflowed || self.passes.conforming.load(Ordering::Acquire) != version {
                self.revalidate_all(version);
            }
            if Instant::now() >= next_sweep {
                let begun = Instant::now();
                self.sweep();
                self.collect_removed();
                let pause = (begun.elapsed() * SWEEP_SHARE).clamp(SWEEP, LONGEST_PAUSE);
                sweeps += 1;
                if sweeps.is_multiple_of(SWEEPS_PER_SORT) {
                    self.forwarding.datapath.sort_masks();
                }
                next_sweep = Instant::now() + pause;
            }
        }
    }

    /// Corrects the flows that depend on MAC table entries that changed.
    ///
    /// When an address moved, the flows that taught its old place go as well: a packet that still comes from
    /// there then is a miss, and moves it back.
    fn follow_macs(&self, first: MacChange) {
        let mut dependents = HashSet::new();
        let mut teachers = HashSet::new();
        {
            let flows = self.forwarding.flows.lock();
            for change in std::iter::once(first).chain(self.changed.try_iter()) {
                let station = (change.bridge, change.key);
                dependents.extend(flows.dependents(&station));
                if let Change::Moved { from, .. } = change.change {
                    teachers.extend(flows.teachers(station, from));
                }
            }
        }
        for id in teachers {
            self.withdraw(id);
        }
        for id in dependents {
            self.revalidate(id);
        }
    }

    fn revalidate_all(&self, version: u64) {
        let ids = self.forwarding.flows.lock().ids();
        for id in ids {
            self.revalidate(id);
        }
        // Flows installed meanwhile were translated against this version or a later one.
        self.passes.conforming.store(version, Ordering::Release);
    }

    /// Translates a flow again and makes it what it ought to be.
    fn revalidate(&self, id: FlowId) {
        let forwarding = &*self.forwarding;
        forwarding.counters.revalidations.fetch_add(1, Ordering::Relaxed);
        for _ in 0..ATTEMPTS {
            let Some(flow) = forwarding.flows.lock().get(id).cloned() else { return };
            let Some(dump) = forwarding.datapath.flow(id) else { return };
            if !flow.learns.iter().all(|lesson| forwarding.is_here(lesson)) {
                // Its packets teach a place that the address has left: one of them has to say so again.
                break;
            }
            let view = forwarding.view.load();
            let translation = forwarding.translate(&view, &dump.key);
            let mut flows = forwarding.flows.lock();
            if !forwarding.still_true(view.network.version(), &translation.deps) {
                continue;
            }
            if flows.get(id).is_none() {
                return;
            }
            if needs_more_bits(&dump.mask, &translation.mask) {
                break;
            }
            let renew = |f: &mut Installed| {
                f.learns = translation.learns.into_iter().collect();
                f.deps = translation.deps.into_iter().collect();
                f.rules = translation.rules.into_iter().collect();
            };
            if flow.actions[..] == translation.actions[..] {
                flows.renew(id, renew);
                return;
            }
            let actions: Arc<[DpAction]> = translation.actions.into();
            match forwarding.datapath.put_flow(&dump.key, &dump.mask, &actions) {
                Ok(new_id) => {
                    if let Some(mut new) = flows.remove(id) {
                        new.actions = actions;
                        new.seen_packets = 0;
                        renew(&mut new);
                        flows.replace(id, new_id, new);
                    }
                    forwarding.counters.corrected.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    tracing::debug!(%error, "flow not corrected in place: withdrawn");
                    drop(flows);
                    self.withdraw(id);
                }
            }
            return;
        }
        self.withdraw(id);
    }

    fn withdraw(&self, id: FlowId) {
        let mut flows = self.forwarding.flows.lock();
        if flows.remove(id).is_some() {
            if let Err(error) = self.forwarding.datapath.remove_flow(id) {
                tracing::warn!(%error, "withdrawing a flow");
            }
            self.forwarding.counters.removed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reads statistics, refreshes MAC table entries, lets idle flows go.
    fn sweep(&self) {
        let forwarding = &*self.forwarding;
        let view = forwarding.view.load();
        let count = forwarding.datapath.flow_count();
        // As Open vSwitch does: over the limit, only what is in use right now stays.
        let max_idle = if count > view.flow_limit { 100 } else { view.max_idle_ms };
        let mut ids = forwarding.flows.lock().ids();
        // In the order of the slots, in which the statistics lie.
        ids.sort_unstable();
        for slice in ids.chunks(SLICE) {
            let mut idle = Vec::new();
            let mut taught = Vec::new();
            {
                let mut flows = forwarding.flows.lock();
                let now = forwarding.datapath.now_ms();
                for id in slice {
                    let Some(stats) = forwarding.datapath.flow_stats(*id) else {
                        // Another flow with the same match took its place.
                        flows.remove(*id);
                        continue;
                    };
                    let Some(flow) = flows.get_mut(*id) else { continue };
                    if stats.packets > flow.seen_packets {
                        flow.seen_packets = stats.packets;
                        flow.used_at = flow.used_at.max(stats.used);
                        taught.extend(flow.learns.iter().filter(|l| forwarding.is_here(l)).copied());
                    }
                    if now.saturating_sub(flow.used_at) > max_idle {
                        idle.push(*id);
                    }
                }
            }
            forwarding.learn(&taught);
            for id in idle {
                self.withdraw(id);
                forwarding.counters.expired.fetch_add(1, Ordering::Relaxed);
            }
        }
        forwarding.mac_changed(forwarding.macs.expire(forwarding.clock.now_ms()));
    }

    /// Frees what no packet can be using any more, and hands its statistics on.
    fn collect_removed(&self) {
        let removed = self.forwarding.datapath.reap();
        if !removed.is_empty() {
            let mut flows = self.forwarding.flows.lock();
            removed.into_iter().for_each(|flow| flows.settle(flow));
        }
    }
}

/// Whether a translation looked at bits that the installed mask leaves open.
fn needs_more_bits(installed: &FlowMask, wanted: &FlowMask) -> bool {
    installed.words().iter().zip(wanted.words()).any(|(have, want)| want & !have != 0)
}
