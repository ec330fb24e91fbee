//! The `bpf(2)` commands that this crate needs and its loader does not offer as they are needed here: links and
//! attachments by interface index, pins, test runs, map updates of any type.
//!
//! Each command's arguments are a struct laid out as its part of the kernel's `union bpf_attr`
//! (`include/uapi/linux/bpf.h`); fields past the end of the struct count as zero. Everything is in host order.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const MAP_CREATE: u32 = 0;
const MAP_UPDATE_ELEM: u32 = 2;
const MAP_DELETE_ELEM: u32 = 3;
const PROG_LOAD: u32 = 5;
const OBJ_PIN: u32 = 6;
const OBJ_GET: u32 = 7;
const PROG_TEST_RUN: u32 = 10;
const LINK_CREATE: u32 = 28;

/// `BPF_MAP_TYPE_ARRAY`.
pub const MAP_TYPE_ARRAY: u32 = 2;
/// `BPF_MAP_TYPE_ARRAY_OF_MAPS`.
pub const MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;

/// Where a link attaches a program: `enum bpf_attach_type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum AttachType {
    Xdp = 37,
    PerfEvent = 41,
    TcxIngress = 46,
    TcxEgress = 47,
}

/// Calls `bpf(2)`.
///
/// # Safety
/// `attr` must be laid out as the command demands, and every pointer in it must be valid for the lengths beside it.
unsafe fn bpf<T>(cmd: u32, attr: &mut T) -> io::Result<i32> {
    // SAFETY: the caller's promise; the size is that of `attr`.
    let r = unsafe { libc::syscall(libc::SYS_bpf, cmd, std::ptr::from_mut(attr), size_of::<T>()) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(r as i32) }
}

/// Calls a command that answers a new descriptor.
///
/// # Safety
/// As [`bpf`].
unsafe fn bpf_fd<T>(cmd: u32, attr: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise; what the kernel answers is a descriptor that nobody else owns.
    unsafe { bpf(cmd, attr).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Creates a map with 4-byte keys. `inner` is the template of the maps that an array of maps holds.
pub fn map_create(
    map_type: u32,
    value_size: u32,
    max_entries: u32,
    inner: Option<BorrowedFd<'_>>,
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        map_type: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        map_flags: u32,
        inner_map_fd: i32,
    }
    let inner_map_fd = inner.map_or(0, |fd| fd.as_raw_fd());
    let mut attr = Attr { map_type, key_size: 4, value_size, max_entries, map_flags: 0, inner_map_fd };
    // SAFETY: the layout of `BPF_MAP_CREATE`, without pointers.
    unsafe { bpf_fd(MAP_CREATE, &mut attr) }
}

#[repr(C)]
struct Element {
    map_fd: i32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Sets an element of a map with 4-byte keys; `value` must have the map's value size.
pub fn map_update(map: BorrowedFd<'_>, key: u32, value: &[u8]) -> io::Result<()> {
    let mut attr = Element {
        map_fd: map.as_raw_fd(),
        pad: 0,
        key: &raw const key as u64,
        value: value.as_ptr() as u64,
        flags: 0,
    };
    // SAFETY: the layout of `BPF_MAP_UPDATE_ELEM`; both pointers outlive the call, and the caller vouches for the
    // sizes, which only this crate's own maps have.
    unsafe { bpf(MAP_UPDATE_ELEM, &mut attr).map(drop) }
}

/// Deletes an element; one that is not there is no error.
pub fn map_delete(map: BorrowedFd<'_>, key: u32) -> io::Result<()> {
    let mut attr =
        Element { map_fd: map.as_raw_fd(), pad: 0, key: &raw const key as u64, value: 0, flags: 0 };
    // SAFETY: the layout of `BPF_MAP_DELETE_ELEM`; the key outlives the call.
    match unsafe { bpf(MAP_DELETE_ELEM, &mut attr) } {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other.map(drop),
    }
}

#[repr(C)]
struct Object {
    path: u64,
    fd: i32,
    flags: u32,
}

/// Pins a map, program or link.
pub fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = Object { path: path.as_ptr() as u64, fd: fd.as_raw_fd(), flags: 0 };
    // SAFETY: the layout of `BPF_OBJ_PIN`; the path outlives the call.
    unsafe { bpf(OBJ_PIN, &mut attr).map(drop) }
}

/// Opens what is pinned at a path.
pub fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = Object { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    // SAFETY: the layout of `BPF_OBJ_GET`; the path outlives the call.
    unsafe { bpf_fd(OBJ_GET, &mut attr) }
}

/// Attaches a program to an interface index (or, for [`AttachType::PerfEvent`], a descriptor) for as long as the
/// link exists.
pub fn link_create(
    program: BorrowedFd<'_>,
    target: u32,
    attach_type: AttachType,
    flags: u32,
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        prog_fd: i32,
        target: u32,
        attach_type: u32,
        flags: u32,
    }
    let mut attr = Attr { prog_fd: program.as_raw_fd(), target, attach_type: attach_type as u32, flags };
    // SAFETY: the layout of `BPF_LINK_CREATE`, without pointers.
    unsafe { bpf_fd(LINK_CREATE, &mut attr) }
}

/// One eBPF instruction as the kernel reads it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Instruction {
    pub code: u8,
    /// Destination register in the low half, source in the high half.
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

/// Loads a small GPL program of type `BPF_PROG_TYPE_SCHED_CLS`.
pub fn load_classifier(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    const SCHED_CLS: u32 = 3;
    #[repr(C)]
    struct Attr {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
    }
    let mut attr = Attr {
        prog_type: SCHED_CLS,
        insn_cnt: instructions.len() as u32,
        insns: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
    };
    // SAFETY: the layout of `BPF_PROG_LOAD`; both pointers outlive the call, and the length is the slice's.
    unsafe { bpf_fd(PROG_LOAD, &mut attr) }
}

/// Arguments and results of `BPF_PROG_TEST_RUN`.
#[derive(Default)]
pub struct TestRun<'a> {
    pub data_in: &'a [u8],
    pub data_out: &'a mut [u8],
    pub context_in: &'a [u8],
    pub repeat: u32,
}

/// What a test run answered.
#[derive(Clone, Copy, Debug)]
pub struct TestRunOutcome {
    pub return_value: u32,
    /// Bytes that were written to `data_out`.
    pub data_len: u32,
    /// ns of one repetition, on average.
    pub duration: u32,
}

/// Runs a program in the kernel on given bytes.
pub fn test_run(program: BorrowedFd<'_>, run: TestRun<'_>) -> io::Result<TestRunOutcome> {
    #[repr(C)]
    struct Attr {
        prog_fd: i32,
        retval: u32,
        data_size_in: u32,
        data_size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
        ctx_size_in: u32,
        ctx_size_out: u32,
        ctx_in: u64,
        ctx_out: u64,
    }
    fn address(bytes: &[u8]) -> u64 {
        if bytes.is_empty() { 0 } else { bytes.as_ptr() as u64 }
    }
    let mut attr = Attr {
        prog_fd: program.as_raw_fd(),
        retval: 0,
        data_size_in: run.data_in.len() as u32,
        data_size_out: run.data_out.len() as u32,
        data_in: address(run.data_in),
        data_out: if run.data_out.is_empty() { 0 } else { run.data_out.as_mut_ptr() as u64 },
        repeat: run.repeat,
        duration: 0,
        ctx_size_in: run.context_in.len() as u32,
        ctx_size_out: 0,
        ctx_in: address(run.context_in),
        ctx_out: 0,
    };
    // SAFETY: the layout of `BPF_PROG_TEST_RUN`; the pointers are of slices that outlive the call, with the
    // slices' lengths beside them.
    unsafe { bpf(PROG_TEST_RUN, &mut attr)? };
    Ok(TestRunOutcome { return_value: attr.retval, data_len: attr.data_size_out, duration: attr.duration })
}

/// Detaches a link's program at once, rather than when the last reference to the link is gone.
pub fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    const LINK_DETACH: u32 = 34;
    let mut fd = link.as_raw_fd();
    // SAFETY: the layout of `BPF_LINK_DETACH`: one descriptor.
    unsafe { bpf(LINK_DETACH, &mut fd).map(drop) }
}

/// Opens the kernel's tracepoint with this id (`events/*/*/id` in tracefs).
pub fn open_tracepoint(id: u64) -> io::Result<OwnedFd> {
    const PERF_TYPE_TRACEPOINT: u32 = 2;
    const PERF_FLAG_FD_CLOEXEC: u32 = 8;
    /// The head of `struct perf_event_attr` (`PERF_ATTR_SIZE_VER0`, 64 bytes); the rest counts as zero.
    #[repr(C)]
    struct Attr {
        event_type: u32,
        size: u32,
        config: u64,
        rest: [u64; 6],
    }
    let mut attr = Attr { event_type: PERF_TYPE_TRACEPOINT, size: 64, config: id, rest: [0; 6] };
    // SAFETY: the attribute is a local of the size that it names; the other arguments are integers: all
    // processes on CPU 0, which for an attached program means every CPU. The result is a new descriptor.
    unsafe {
        let fd = libc::syscall(
            libc::SYS_perf_event_open,
            std::ptr::from_mut(&mut attr),
            -1,
            0,
            -1,
            PERF_FLAG_FD_CLOEXEC,
        );
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd as i32)) }
    }
}
