//! Netlink messages and attributes as bytes (`include/uapi/linux/netlink.h`), all in host byte order.
//!
//! Reading never panics and never fails on what it does not know: an attribute list ends where its bytes stop
//! making sense. Writing is for payloads that this crate makes: names of at most 15 bytes, numbers and nests of
//! those, far below the 64 KiB that an attribute can hold.

/// Bytes of `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;
/// Flag of an attribute type that holds attributes.
const NESTED: u16 = libc::NLA_F_NESTED as u16;
/// Bits of an attribute's type that are its type.
const TYPE_MASK: u16 = !((libc::NLA_F_NESTED | libc::NLA_F_NET_BYTEORDER) as u16);

const fn align(len: usize) -> usize {
    (len + 3) & !3
}

/// A request under construction.
#[derive(Debug)]
pub(crate) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// A message of a type with `NLM_F_` flags; `NLM_F_REQUEST` is added.
    pub(crate) fn new(kind: u16, flags: i32) -> Request {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&((flags | libc::NLM_F_REQUEST) as u16).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        Request { bytes }
    }

    /// The family's fixed header, ahead of the attributes or at the start of a nest.
    pub(crate) fn raw(mut self, payload: &[u8]) -> Request {
        self.bytes.extend_from_slice(payload);
        self.pad();
        self
    }

    pub(crate) fn attr(mut self, kind: u16, payload: &[u8]) -> Request {
        let len = (payload.len() + 4) as u16;
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(payload);
        self.pad();
        self
    }

    pub(crate) fn attr_u32(self, kind: u16, value: u32) -> Request {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// A string with the closing zero byte that the kernel wants.
    pub(crate) fn attr_string(self, kind: u16, value: &str) -> Request {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    /// An attribute that holds whatever `fill` adds.
    pub(crate) fn nest(mut self, kind: u16, fill: impl FnOnce(Request) -> Request) -> Request {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        let mut filled = fill(self);
        let len = (filled.bytes.len() - start) as u16;
        filled.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        filled
    }

    fn pad(&mut self) {
        self.bytes.resize(align(self.bytes.len()), 0);
    }

    /// Sets further `NLM_F_` flags and the sequence number, and yields the finished message.
    pub(super) fn finish(&mut self, flags: i32, sequence: u32) -> &[u8] {
        let len = self.bytes.len() as u32;
        self.bytes[0..4].copy_from_slice(&len.to_ne_bytes());
        let old = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]);
        self.bytes[6..8].copy_from_slice(&(old | flags as u16).to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        &self.bytes
    }

    pub(super) fn is_dump(&self) -> bool {
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]);
        i32::from(flags) & libc::NLM_F_DUMP == libc::NLM_F_DUMP
    }
}

/// One message that the kernel sent.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The attributes behind a fixed header of `header` bytes.
    pub(crate) fn attributes(&self, header: usize) -> Attributes<'a> {
        Attributes(self.payload.get(align(header)..).unwrap_or(&[]))
    }
}

/// The messages of one datagram; ends at the first one whose length does not fit.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header: &[u8; HEADER] = bytes.first_chunk()?;
        let len = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let payload = bytes.get(HEADER..len)?;
        let message = Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            payload,
        };
        bytes = bytes.get(align(len)..).unwrap_or(&[]);
        Some(message)
    })
}

/// Attributes one after the other: type without its flag bits, and payload.
#[derive(Clone, Debug)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Attributes<'a> {
    /// The first attribute of a type.
    pub(crate) fn find(&self, kind: u16) -> Option<&'a [u8]> {
        Iterator::find(&mut self.clone(), |(k, _)| *k == kind).map(|(_, payload)| payload)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let head: &[u8; 4] = self.0.first_chunk()?;
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & TYPE_MASK;
        let payload = self.0.get(4..len)?;
        self.0 = self.0.get(align(len)..).unwrap_or(&[]);
        Some((kind, payload))
    }
}

/// A string attribute, up to its first zero byte.
pub(crate) fn attr_string(payload: &[u8]) -> String {
    let end = payload.iter().position(|b| *b == 0).unwrap_or(payload.len());
    String::from_utf8_lossy(&payload[..end]).into_owned()
}

pub(crate) fn attr_u8(payload: &[u8]) -> Option<u8> {
    payload.first().copied()
}

pub(crate) fn attr_u32(payload: &[u8]) -> Option<u32> {
    payload.first_chunk().map(|b| u32::from_ne_bytes(*b))
}

pub(crate) fn attr_u64(payload: &[u8]) -> Option<u64> {
    payload.first_chunk().map(|b| u64::from_ne_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut request = Request::new(16, libc::NLM_F_CREATE)
            .raw(&[1, 2, 3, 4, 5])
            .attr_string(3, "veth0")
            .nest(18, |r| r.attr_string(1, "veth").attr_u32(7, 0xdead_beef));
        let bytes = request.finish(libc::NLM_F_ACK, 7).to_vec();
        let all: Vec<_> = messages(&bytes).collect();
        assert_eq!(all.len(), 1);
        let m = &all[0];
        assert_eq!((m.kind, m.sequence), (16, 7));
        assert_eq!(i32::from(m.flags), libc::NLM_F_CREATE | libc::NLM_F_ACK | libc::NLM_F_REQUEST);
        let attributes = m.attributes(5);
        assert_eq!(attributes.find(3).map(attr_string).as_deref(), Some("veth0"));
        let nest = Attributes(attributes.find(18).expect("nest"));
        assert_eq!(nest.find(7).and_then(attr_u32), Some(0xdead_beef));
    }

    #[test]
    fn damaged_bytes_end_the_list() {
        for len in [0u16, 3, 5, 9, 0xffff] {
            let mut bytes = vec![0u8; 8];
            bytes[0..2].copy_from_slice(&len.to_ne_bytes());
            assert!(Attributes(&bytes).count() <= 2, "length {len}");
        }
        let mut message = vec![0u8; 20];
        for len in [0u32, 15, 21, u32::MAX] {
            message[0..4].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(messages(&message).count(), 0, "length {len}");
        }
    }
}
