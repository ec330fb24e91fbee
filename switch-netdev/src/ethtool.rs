//! Device features, driver and channels by the ethtool ioctl (`include/uapi/linux/ethtool.h`).
//!
//! Features are named as the kernel names them (`netdev_features_strings`), or by the names of `ethtool -K`
//! ("tx-checksumming", "rx-vlan-offload"), some of which stand for several of the kernel's.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::link::{NAME_MAX, check_name};
use crate::namespace::{Namespace, NamespaceError};

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_SFEATURES: u32 = 0x3b;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
/// The string set of feature names.
const ETH_SS_FEATURES: u32 = 4;
/// Bytes of a name in a string set.
const ETH_GSTRING_LEN: usize = 32;
/// More features than any kernel has: bounds what is read.
const FEATURES_MAX: usize = 1024;

/// Why a device's features could not be read or set. Each names the interface and what was attempted.
#[derive(Debug, thiserror::Error)]
pub enum EthtoolError {
    #[error("cannot open a socket for ethtool: {0}")]
    Open(#[source] io::Error),
    #[error("interface {link}: cannot {what}: {source}")]
    Ioctl { link: String, what: &'static str, source: io::Error },
    #[error("interface {link} has no feature named {feature}")]
    NoFeature { link: String, feature: String },
    #[error("interface {link}: {feature} cannot be switched {}", if *.wanted { "on" } else { "off" })]
    Fixed { link: String, feature: String, wanted: bool },
    #[error("{name:?} is not an interface name")]
    BadName { name: String },
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
}

impl EthtoolError {
    /// The device is not there.
    pub fn is_gone(&self) -> bool {
        matches!(self, EthtoolError::Ioctl { source, .. } if source.raw_os_error() == Some(libc::ENODEV))
    }
}

/// One feature of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// The kernel's name.
    pub name: String,
    pub active: bool,
    /// It can be switched.
    pub changeable: bool,
}

/// Numbers of a device's queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Channels {
    pub rx: u32,
    pub tx: u32,
    /// Queues that both receive and transmit.
    pub combined: u32,
    pub max_rx: u32,
    pub max_tx: u32,
    pub max_combined: u32,
}

/// The kernel's names behind a name of `ethtool -K`; a kernel's name stands for itself.
fn kernel_names(name: &str) -> Vec<&str> {
    let some: &[&'static str] = match name {
        "rx-checksumming" | "rx" => &["rx-checksum"],
        "tx-checksumming" | "tx" => &[
            "tx-checksum-ipv4",
            "tx-checksum-ip-generic",
            "tx-checksum-ipv6",
            "tx-checksum-fcoe-crc",
            "tx-checksum-sctp",
        ],
        "scatter-gather" | "sg" => &["tx-scatter-gather", "tx-scatter-gather-fraglist"],
        "tcp-segmentation-offload" | "tso" => &[
            "tx-tcp-segmentation",
            "tx-tcp-ecn-segmentation",
            "tx-tcp-mangleid-segmentation",
            "tx-tcp6-segmentation",
        ],
        "generic-segmentation-offload" | "gso" => &["tx-generic-segmentation"],
        "generic-receive-offload" | "gro" => &["rx-gro"],
        "large-receive-offload" | "lro" => &["rx-lro"],
        "rx-vlan-offload" | "rxvlan" => &["rx-vlan-hw-parse"],
        "tx-vlan-offload" | "txvlan" => &["tx-vlan-hw-insert"],
        "ntuple-filters" | "ntuple" => &["rx-ntuple-filter"],
        "receive-hashing" | "rxhash" => &["rx-hashing"],
        _ => return vec![name],
    };
    some.to_vec()
}

/// The ethtool door of one network namespace.
#[derive(Debug)]
pub struct Ethtool {
    socket: OwnedFd,
}

impl Ethtool {
    /// For the devices of the calling thread's namespace.
    pub fn open() -> Result<Ethtool, EthtoolError> {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
            .map_err(|e| EthtoolError::Open(e.into()))?;
        Ok(Ethtool { socket })
    }

    /// For the devices of another namespace.
    pub fn open_in(namespace: &Namespace) -> Result<Ethtool, EthtoolError> {
        namespace.run(Ethtool::open)?
    }

    /// Every feature of a device, in the kernel's order.
    pub fn features(&self, link: &str) -> Result<Vec<Feature>, EthtoolError> {
        let what = "read its features";
        let names = self.feature_names(link)?;
        let blocks = names.len().div_ceil(32);
        // cmd, size, then per 32 features: available, requested, active, never_changed.
        let mut words = vec![0u32; 2 + 4 * blocks];
        words[0] = ETHTOOL_GFEATURES;
        words[1] = blocks as u32;
        self.ioctl(link, what, &mut words)?;
        let bit = |word: usize, i: usize| words[2 + 4 * (i / 32) + word] >> (i % 32) & 1 != 0;
        let features = names.into_iter().enumerate().map(|(i, name)| Feature {
            name,
            active: bit(2, i),
            changeable: bit(0, i) && !bit(3, i),
        });
        Ok(features.collect())
    }

    /// Whether any of the features behind a name is active. A name that this kernel does not have is inactive.
    pub fn is_active(&self, link: &str, feature: &str) -> Result<bool, EthtoolError> {
        let names = kernel_names(feature);
        Ok(self.features(link)?.iter().any(|f| f.active && names.contains(&f.name.as_str())))
    }

    /// Switches a feature, and returns the kernel's names of those that it changed. What is so already is no
    /// change; neither is what cannot be switched, if another behind the same name can.
    ///
    /// # Errors
    /// [`EthtoolError::NoFeature`] if this kernel has none of that name, [`EthtoolError::Fixed`] if after the
    /// change one is still not as wanted.
    pub fn set(&self, link: &str, feature: &str, on: bool) -> Result<Vec<String>, EthtoolError> {
        let wanted = kernel_names(feature);
        let before = self.features(link)?;
        let known: Vec<(usize, &Feature)> =
            before.iter().enumerate().filter(|(_, f)| wanted.contains(&f.name.as_str())).collect();
        if known.is_empty() {
            return Err(EthtoolError::NoFeature { link: link.to_owned(), feature: feature.to_owned() });
        }
        let change: Vec<(usize, &Feature)> =
            known.iter().filter(|(_, f)| f.changeable && f.active != on).copied().collect();
        if !change.is_empty() {
            let blocks = before.len().div_ceil(32);
            // cmd, size, then per 32 features: valid, requested.
            let mut words = vec![0u32; 2 + 2 * blocks];
            words[0] = ETHTOOL_SFEATURES;
            words[1] = blocks as u32;
            for (i, _) in &change {
                words[2 + 2 * (i / 32)] |= 1 << (i % 32);
                words[2 + 2 * (i / 32) + 1] |= u32::from(on) << (i % 32);
            }
            self.ioctl(link, "set its features", &mut words)?;
        }
        let after = self.features(link)?;
        let fixed = |f: &Feature| {
            Err(EthtoolError::Fixed { link: link.to_owned(), feature: f.name.clone(), wanted: on })
        };
        if on {
            // "On" asks for what the device can do.
            if let Some((_, f)) = known.first()
                && !known.iter().any(|(i, _)| after.get(*i).is_some_and(|f| f.active))
            {
                return fixed(f);
            }
        } else if let Some((_, f)) = known.iter().find(|(i, _)| after.get(*i).is_none_or(|f| f.active)) {
            return fixed(f);
        }
        let changed = change.iter().filter(|(i, f)| after.get(*i).is_some_and(|a| a.active != f.active));
        Ok(changed.map(|(_, f)| f.name.clone()).collect())
    }

    /// Name of the driver, as in "veth", "tun", "mlx5_core", "virtio_net", "vif".
    pub fn driver(&self, link: &str) -> Result<String, EthtoolError> {
        // struct ethtool_drvinfo: cmd, then the driver's name in 32 bytes; 196 bytes in all.
        let mut words = vec![0u32; 196 / 4];
        words[0] = ETHTOOL_GDRVINFO;
        self.ioctl(link, "ask for its driver", &mut words)?;
        let bytes: Vec<u8> = words[1..9].iter().flat_map(|w| w.to_ne_bytes()).collect();
        Ok(text(&bytes))
    }

    /// Numbers of its queues; `None` if the driver does not say.
    pub fn channels(&self, link: &str) -> Result<Option<Channels>, EthtoolError> {
        // struct ethtool_channels: cmd, then maxima and numbers of rx, tx, other, combined.
        let mut words = vec![0u32; 9];
        words[0] = ETHTOOL_GCHANNELS;
        match self.ioctl(link, "ask for its channels", &mut words) {
            Ok(()) => Ok(Some(Channels {
                max_rx: words[1],
                max_tx: words[2],
                max_combined: words[4],
                rx: words[5],
                tx: words[6],
                combined: words[8],
            })),
            Err(EthtoolError::Ioctl { source, .. }) if source.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    fn feature_names(&self, link: &str) -> Result<Vec<String>, EthtoolError> {
        let what = "read the names of its features";
        // struct ethtool_sset_info: cmd, reserved, 64-bit mask of sets, one length for each bit that is set.
        let mut info = vec![0u32; 5];
        info[0] = ETHTOOL_GSSET_INFO;
        let mask = (1u64 << ETH_SS_FEATURES).to_ne_bytes();
        info[2] = u32::from_ne_bytes([mask[0], mask[1], mask[2], mask[3]]);
        info[3] = u32::from_ne_bytes([mask[4], mask[5], mask[6], mask[7]]);
        self.ioctl(link, what, &mut info)?;
        let count = (info[4] as usize).min(FEATURES_MAX);
        // struct ethtool_gstrings: cmd, set, length, names.
        let mut strings = vec![0u32; 3 + count * ETH_GSTRING_LEN / 4];
        strings[0] = ETHTOOL_GSTRINGS;
        strings[1] = ETH_SS_FEATURES;
        strings[2] = count as u32;
        self.ioctl(link, what, &mut strings)?;
        let bytes: Vec<u8> = strings[3..].iter().flat_map(|w| w.to_ne_bytes()).collect();
        Ok(bytes.chunks_exact(ETH_GSTRING_LEN).map(text).collect())
    }

    /// One ethtool command; `words` begins with its number and is as long as the kernel will read and write.
    fn ioctl(&self, link: &str, what: &'static str, words: &mut [u32]) -> Result<(), EthtoolError> {
        check_name(link).map_err(|_| EthtoolError::BadName { name: link.to_owned() })?;
        // SAFETY: all zeros is a valid ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().take(NAME_MAX).zip(link.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
        // SAFETY: the kernel reads the name, and reads and writes the command's structure, whose length it takes
        // from the command and from the counts in it, which the callers made the buffer fit.
        let result =
            unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
        if result < 0 {
            let source = io::Error::last_os_error();
            return Err(EthtoolError::Ioctl { link: link.to_owned(), what, source });
        }
        Ok(())
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
