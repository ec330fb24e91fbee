//! Numbers of the per-CPU counters: cache levels, and every reason for which a packet can be dropped.

macro_rules! counters {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $number:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[repr(u16)]
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant = $number,)* }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The name that people and programs read.
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }

            pub const fn from_number(n: u16) -> Option<$name> {
                match n { $($number => Some($name::$variant),)* _ => None }
            }
        }
    };
}

counters! {
    /// What happened to packets, besides being dropped.
    Counter {
        /// Found in the exact-match cache.
        CacheHit = 0, "exact_match_hits";
        /// Found among the megaflows.
        MegaflowHit = 1, "megaflow_hits";
        /// Not found: sent to userspace, or dropped at the port's limit.
        Miss = 2, "misses";
        /// Masks tried in all megaflow look-ups.
        MasksTried = 3, "masks_tried";
        /// Handed from XDP to TC with the flow's slot.
        HandedOver = 4, "handed_over";
        /// Hand-overs that no longer held when TC read them, or that had no metadata: looked up again.
        HandoverStale = 5, "handover_stale";
        /// A header behind the Ethernet header was cut or made no sense.
        Malformed = 6, "malformed";
        /// Sent to userspace by an action.
        UpcallAction = 7, "upcalls_by_action";
        /// Sent to userspace because of a miss.
        UpcallMiss = 8, "upcalls_by_miss";
        /// Recirculated.
        Recirculated = 9, "recirculated";
    }
}

counters! {
    /// Why a packet was dropped. Numbers are part of the ABI.
    Drop {
        /// The flow has no actions: the tables say so.
        Policy = 16, "policy";
        /// The interface is not (or no longer) a port.
        NoPort = 17, "no_port";
        /// Shorter than an Ethernet header.
        Runt = 18, "runt";
        /// The port's limit of misses per second.
        UpcallLimit = 19, "upcall_limit";
        /// The frame could not be sent up: no room for the header, no upcall device.
        UpcallFailed = 20, "upcall_failed";
        /// Longer than the output port's MTU.
        Mtu = 21, "mtu";
        /// The output port does not exist or is down.
        NoOutput = 22, "no_output";
        /// A meter.
        Meter = 23, "meter";
        /// Recirculated too often.
        RecircLimit = 24, "recirculation_limit";
        /// An action did not fit the packet (a header that is not there).
        ActionFailed = 25, "action_failed";
        /// A kernel helper refused.
        Helper = 26, "helper_failed";
        /// XDP transmit failed after the program had returned.
        XdpTransmit = 27, "xdp_transmit";
        /// Userspace: the port's queue of misses was full.
        QueueFull = 28, "upcall_queue_full";
        /// Userspace: translation ended in an error (depth, table limit).
        Translation = 29, "translation";
        /// Userspace: the packet could not be sent.
        SendFailed = 30, "send_failed";
        /// A frame that the switch itself may not forward (reserved multicast).
        Reserved = 31, "reserved_multicast";
        /// A VLAN tag that the input port does not admit.
        VlanFilter = 32, "vlan_filter";
        /// The frame would have gone back where it came from, and nowhere else.
        Hairpin = 33, "hairpin";
    }
}

/// Counters of each CPU: numbers of [`Counter`] and [`Drop`] are indices into one row of this many u64.
pub const COUNTER_ROW: usize = 64;
