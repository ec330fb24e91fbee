//! Internal ports: what the host itself sees of a bridge.
//!
//! A veth pair. The host's end bears the port's name; the hidden end is the datapath's port. Both survive the
//! daemon, and a later one finds the pair by the hidden end's name: the host's end may have been renamed, or moved
//! to another namespace, and forwards all the same.

use crate::link::{Link, LinkError, Links, MacAddress, VethSpec, check_name};

/// Why an internal port could not be made. Each names the port.
#[derive(Debug, thiserror::Error)]
pub enum InternalPortError {
    #[error("internal port {port}: {source}")]
    Link { port: String, source: LinkError },
    #[error("internal port {port}: there is another interface of that name")]
    NameTaken { port: String },
    #[error("internal port {port}: {hidden} is there, but is not an end of a veth pair")]
    NotOurs { port: String, hidden: String },
}

/// An internal port. Dropping this leaves the links alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InternalPort {
    name: String,
    hidden: Link,
    adopted: bool,
}

/// What is wanted of an internal port.
#[derive(Clone, Copy, Debug)]
pub struct InternalPortSpec<'a> {
    /// Name of the host's end.
    pub name: &'a str,
    /// Name of the datapath's end, see [`hidden_name`].
    pub hidden: &'a str,
    /// Of the host's end, if the pair is made anew.
    pub mac: MacAddress,
    /// Bytes behind the Ethernet header, if the pair is made anew.
    pub mtu: u32,
}

/// Name of the hidden end of an instance's port: `slp-`, and eleven characters that stand for both.
pub fn hidden_name(instance: &str, port: &str) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let hash = hash(instance, port);
    let tail: String = (0..11).map(|i| ALPHABET[(hash >> (5 * i)) as usize & 31] as char).collect();
    format!("slp-{tail}")
}

/// The address of an instance's port where none is configured: locally administered, and the same each time.
pub fn stable_mac(instance: &str, port: &str) -> MacAddress {
    let [a, b, c, d, e, f, ..] = hash(port, instance).to_be_bytes();
    MacAddress([a & 0xfc | 0x02, b, c, d, e, f])
}

/// FNV-1a over both, with a byte between that neither holds, and its high bits folded into the low ones.
fn hash(first: &str, second: &str) -> u64 {
    let bytes = first.bytes().chain([0]).chain(second.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    hash ^ hash >> 32
}

impl InternalPort {
    /// Makes the pair, or takes over the one that is there, in the calling thread's namespace. The hidden end is
    /// up, and without IPv6; the host's end is left to the host, down at first.
    pub fn create(spec: &InternalPortSpec<'_>) -> Result<InternalPort, InternalPortError> {
        let port = spec.name.to_owned();
        let failed = |source| InternalPortError::Link { port: port.clone(), source };
        check_name(spec.name).map_err(failed)?;
        let links = Links::open().map_err(failed)?;
        let adopted = match links.by_name(spec.hidden) {
            Ok(link) if link.is_veth() => true,
            Ok(_) => return Err(InternalPortError::NotOurs { port, hidden: spec.hidden.to_owned() }),
            Err(LinkError::NotFound { .. }) => false,
            Err(e) => return Err(failed(e)),
        };
        if !adopted {
            let mut veth = VethSpec { mtu: spec.mtu, ..VethSpec::new(spec.name, spec.hidden) };
            veth.ends[0].mac = Some(spec.mac);
            match links.create_veth(&veth) {
                Err(e) if e.errno() == Some(libc::EEXIST) => {
                    return Err(InternalPortError::NameTaken { port });
                }
                other => other.map_err(failed)?,
            }
        }
        let hidden = links.by_name(spec.hidden).map_err(failed)?;
        let ready = links.disable_ipv6(&hidden).and_then(|()| links.set_up(hidden.ifindex, true));
        match ready.and_then(|()| links.by_index(hidden.ifindex)) {
            Ok(hidden) => Ok(InternalPort { name: spec.name.to_owned(), hidden, adopted }),
            Err(e) => {
                if !adopted {
                    // Half a port is worse than none; the first error is the one to tell.
                    let _ = links.delete(hidden.ifindex);
                }
                Err(failed(e))
            }
        }
    }

    /// Name of the host's end as configured.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The datapath's end, as it was when this was made.
    pub fn hidden(&self) -> &Link {
        &self.hidden
    }

    /// It was there already.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// The host's end, wherever it is.
    ///
    /// # Errors
    /// Also if it is in a namespace that cannot be seen from here; the port works all the same.
    pub fn host_end(&self) -> Result<Link, InternalPortError> {
        let failed = |source| InternalPortError::Link { port: self.name.clone(), source };
        let links = Links::open().map_err(failed)?;
        let hidden = links.by_index(self.hidden.ifindex).map_err(failed)?;
        match links.peer(&hidden).map_err(failed)? {
            Some((_, link)) => Ok(link),
            None => Err(failed(LinkError::NotFound { link: self.name.clone() })),
        }
    }

    /// Sets the MTU of the host's end and the hidden one.
    pub fn set_mtu(&self, mtu: u32) -> Result<(), InternalPortError> {
        let failed = |source| InternalPortError::Link { port: self.name.clone(), source };
        let links = Links::open().map_err(failed)?;
        links.set_mtu(self.hidden.ifindex, mtu).map_err(failed)?;
        let hidden = links.by_index(self.hidden.ifindex).map_err(failed)?;
        if let Some((namespace, host)) = links.peer(&hidden).map_err(failed)? {
            Links::open_in(&namespace).and_then(|there| there.set_mtu(host.ifindex, mtu)).map_err(failed)?;
        }
        Ok(())
    }

    /// Deletes the port, both ends of it.
    pub fn delete(self) -> Result<(), InternalPortError> {
        let failed = |source| InternalPortError::Link { port: self.name.clone(), source };
        match Links::open().map_err(failed)?.delete(self.hidden.ifindex) {
            Ok(()) | Err(LinkError::NotFound { .. }) => Ok(()),
            Err(e) => Err(failed(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_stable_and_fit() {
        let name = hidden_name("abc234", "br0");
        assert_eq!(name, hidden_name("abc234", "br0"));
        assert_ne!(name, hidden_name("abc235", "br0"));
        assert_ne!(name, hidden_name("abc234", "br1"));
        assert!(check_name(&name).is_ok(), "{name}");
        let MacAddress([first, ..]) = stable_mac("abc234", "br0");
        assert_eq!(first & 3, 2, "locally administered, one station's");
        assert_ne!(stable_mac("abc234", "br0"), stable_mac("abc234", "br1"));
    }
}
