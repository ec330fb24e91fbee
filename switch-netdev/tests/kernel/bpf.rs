//! The smallest programs that hand frames to AF_XDP, and that push a tag, loaded by bare system calls: this crate
//! attaches none.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const BPF_MAP_CREATE: i32 = 0;
const BPF_MAP_UPDATE_ELEM: i32 = 2;
const BPF_PROG_LOAD: i32 = 5;
const BPF_LINK_CREATE: i32 = 28;
const BPF_MAP_TYPE_XSKMAP: u32 = 17;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_XDP: u32 = 37;
const BPF_TCX_EGRESS: u32 = 47;
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// `union bpf_attr`, as words.
type Attributes = [u32; 32];

fn bpf(command: i32, attributes: &mut Attributes) -> io::Result<i32> {
    // SAFETY: the attributes are as long as said, and what they point at lives through the call (see the callers).
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of::<Attributes>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

fn owned(result: io::Result<i32>) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is new and nobody else's.
    result.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

fn pointer(attributes: &mut Attributes, at: usize, value: u64) {
    let bytes = value.to_ne_bytes();
    attributes[at] = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    attributes[at + 1] = u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
}

const fn instruction(code: u8, dst: u8, src: u8, offset: i16, imm: i32) -> u64 {
    code as u64
        | (dst as u64) << 8
        | (src as u64) << 12
        | (offset as u16 as u64) << 16
        | (imm as u32 as u64) << 32
}

fn load(kind: u32, program: &[u64], flags: u32) -> io::Result<OwnedFd> {
    let mut load = [0; 32];
    load[0] = kind;
    load[1] = program.len() as u32;
    pointer(&mut load, 2, program.as_ptr() as u64);
    pointer(&mut load, 4, c"GPL".as_ptr() as u64);
    load[11] = flags;
    owned(bpf(BPF_PROG_LOAD, &mut load))
}

fn attach(program: &OwnedFd, ifindex: u32, hook: u32, flags: u32) -> io::Result<OwnedFd> {
    let mut link = [0; 32];
    link[0..4].copy_from_slice(&[program.as_raw_fd() as u32, ifindex, hook, flags]);
    owned(bpf(BPF_LINK_CREATE, &mut link))
}

/// A program that pushes a VLAN tag onto what a link sends; detached on drop.
pub struct Tagger {
    _program: OwnedFd,
    _link: OwnedFd,
}

impl Tagger {
    /// Attaches to a link of the calling thread's namespace.
    pub fn new(ifindex: u32, vlan: i32) -> io::Result<Tagger> {
        // bpf_skb_vlan_push(skb, htons(ETH_P_8021Q), vlan); return TC_ACT_OK;
        let program = [
            instruction(0xb7, 2, 0, 0, i32::from(0x8100u16.to_be())),
            instruction(0xb7, 3, 0, 0, vlan),
            instruction(0x85, 0, 0, 0, 18),
            instruction(0xb7, 0, 0, 0, 0),
            instruction(0x95, 0, 0, 0, 0),
        ];
        let program = load(BPF_PROG_TYPE_SCHED_CLS, &program, 0)?;
        let link = attach(&program, ifindex, BPF_TCX_EGRESS, 0)?;
        Ok(Tagger { _program: program, _link: link })
    }
}

/// A program on a link, and its socket map; detached on drop.
pub struct Attached {
    map: OwnedFd,
    _program: OwnedFd,
    _link: OwnedFd,
}

impl Attached {
    /// Attaches to a link of the calling thread's namespace; `frags` admits frames in several pieces.
    pub fn new(ifindex: u32, frags: bool) -> io::Result<Attached> {
        Attached::with_default(ifindex, frags, XDP_DROP)
    }

    /// Attaches a program that passes every frame for which no socket is in the map.
    pub fn passing(ifindex: u32) -> io::Result<Attached> {
        Attached::with_default(ifindex, true, XDP_PASS)
    }

    fn with_default(ifindex: u32, frags: bool, verdict: i32) -> io::Result<Attached> {
        let mut map = [0; 32];
        map[0..4].copy_from_slice(&[BPF_MAP_TYPE_XSKMAP, 4, 4, 64]);
        let map = owned(bpf(BPF_MAP_CREATE, &mut map))?;
        // return bpf_redirect_map(&map, ctx->rx_queue_index, verdict);
        let program = [
            instruction(0x61, 2, 1, 16, 0),
            instruction(0x18, 1, 1, 0, map.as_raw_fd()),
            instruction(0, 0, 0, 0, 0),
            instruction(0xb7, 3, 0, 0, verdict),
            instruction(0x85, 0, 0, 0, 51),
            instruction(0x95, 0, 0, 0, 0),
        ];
        let program = load(BPF_PROG_TYPE_XDP, &program, if frags { BPF_F_XDP_HAS_FRAGS } else { 0 })?;
        let link = attach(&program, ifindex, BPF_XDP, XDP_FLAGS_DRV_MODE)?;
        Ok(Attached { map, _program: program, _link: link })
    }

    /// Puts an AF_XDP socket into the map.
    pub fn insert(&self, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        let value = socket.as_raw_fd();
        let mut update = [0; 32];
        update[0] = self.map.as_raw_fd() as u32;
        pointer(&mut update, 2, (&raw const queue) as u64);
        pointer(&mut update, 4, (&raw const value) as u64);
        bpf(BPF_MAP_UPDATE_ELEM, &mut update).map(|_| ())
    }
}
