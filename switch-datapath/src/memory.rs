//! Memory that eBPF programs read or write at the same time: mmapped array maps, or plain heap for tests of what
//! is built upon them.
//!
//! Everything goes through volatile accesses of whole elements, or through atomics for the fields by which the
//! two sides synchronize. An index past the end panics: indices come from this crate's own allocators, never
//! from outside.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};

use switch_common::action::Action;
use switch_common::bucket::RateLimit;
use switch_common::counter::COUNTER_ROW;
use switch_common::flow::{
    Bucket, FlowEntry, FlowRest, FlowStats, FullMasks, LongMasks, MaskOrder, ShortMasks,
};
use switch_common::port::{IfindexEntry, PortCounters, PortEntry};

/// A type that is integers all through.
///
/// # Safety
/// Every bit pattern must be valid, and there must be no padding.
pub unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($t:ty),* $(,)?) => { $(
        // SAFETY: a `repr(C)` struct (or array) of integers whose pad fields have names.
        unsafe impl Plain for $t {}
    )* };
}

plain!(
    FlowEntry,
    FlowRest,
    FlowStats,
    Action,
    Bucket,
    ShortMasks,
    LongMasks,
    FullMasks,
    MaskOrder,
    PortEntry,
    RateLimit,
    IfindexEntry,
    PortCounters,
    [u64; COUNTER_ROW],
);

enum Owner {
    Mapping,
    Heap,
}

/// An array of `T` that others may access at any time. Unmapped (or freed) on drop.
pub struct Area<T: Plain> {
    start: NonNull<T>,
    len: usize,
    owner: Owner,
}

// SAFETY: an area is only an address; all accesses are volatile or atomic, and the memory belongs to it until it
// is dropped.
unsafe impl<T: Plain> Send for Area<T> {}
// SAFETY: as above.
unsafe impl<T: Plain> Sync for Area<T> {}

impl<T: Plain> Area<T> {
    /// Maps an array map (`BPF_F_MMAPABLE`) of `len` elements, each of which takes a multiple of 8 bytes, as the
    /// kernel lays arrays out.
    pub fn map(fd: BorrowedFd<'_>, len: usize) -> io::Result<Area<T>> {
        const { assert!(size_of::<T>().is_multiple_of(8), "array maps round their elements up to 8 bytes") };
        let bytes = len.checked_mul(size_of::<T>()).filter(|b| *b > 0).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a fresh shared mapping at an address of the kernel's choice touches no existing memory.
        let p = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                // The pages are there already: only their entries are made, so that no packet waits for one.
                libc::MAP_SHARED | libc::MAP_POPULATE,
                fd.as_raw_fd(),
                0,
            )
        };
        if p == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(p.cast::<T>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Area { start, len, owner: Owner::Mapping })
    }

    /// Zeroed memory of this process alone.
    pub fn heap(len: usize) -> Area<T> {
        let Ok(layout) = Layout::array::<T>(len.max(1)) else {
            panic!("an area of {len} elements does not fit into the address space");
        };
        // SAFETY: the layout is not empty.
        let p = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(p.cast::<T>()) else { handle_alloc_error(layout) };
        Area { start, len, owner: Owner::Heap }
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn at(&self, i: usize) -> *mut T {
        assert!(i < self.len, "index {i} past an area of {}", self.len);
        // SAFETY: inside the memory that this area owns.
        unsafe { self.start.as_ptr().add(i) }
    }

    /// A copy of element `i`. If someone writes it meanwhile the copy may mix both.
    pub fn read(&self, i: usize) -> T {
        // SAFETY: `at` has checked the range; every bit pattern is a valid `T`.
        unsafe { self.at(i).read_volatile() }
    }

    pub fn write(&self, i: usize, value: T) {
        // SAFETY: `at` has checked the range.
        unsafe { self.at(i).write_volatile(value) }
    }

    fn field<A>(&self, i: usize, offset: usize) -> *mut A {
        assert!(offset + size_of::<A>() <= size_of::<T>() && offset.is_multiple_of(align_of::<A>()));
        // SAFETY: inside element `i`, by the assertion.
        unsafe { self.at(i).cast::<u8>().add(offset).cast::<A>() }
    }

    /// The u64 at byte `offset` of element `i`.
    pub fn u64_at(&self, i: usize, offset: usize) -> &AtomicU64 {
        // SAFETY: aligned (elements are, and `field` checks the offset), inside our memory, which outlives the
        // reference; whoever else changes it does so with single stores.
        unsafe { AtomicU64::from_ptr(self.field(i, offset)) }
    }

    /// The u32 at byte `offset` of element `i`.
    pub fn u32_at(&self, i: usize, offset: usize) -> &AtomicU32 {
        // SAFETY: as in `u64_at`.
        unsafe { AtomicU32::from_ptr(self.field(i, offset)) }
    }

    /// The u16 at byte `offset` of element `i`.
    pub fn u16_at(&self, i: usize, offset: usize) -> &AtomicU16 {
        // SAFETY: as in `u64_at`.
        unsafe { AtomicU16::from_ptr(self.field(i, offset)) }
    }

    /// Stores one byte at `offset` of element `i`.
    pub fn store_byte(&self, i: usize, offset: usize, value: u8) {
        // SAFETY: `field` has checked the range.
        unsafe { self.field::<u8>(i, offset).write_volatile(value) }
    }

    /// The byte at `offset` of element `i`.
    pub fn load_byte(&self, i: usize, offset: usize) -> u8 {
        // SAFETY: `field` has checked the range.
        unsafe { self.field::<u8>(i, offset).read_volatile() }
    }
}

impl<T: Plain> Drop for Area<T> {
    fn drop(&mut self) {
        let p = self.start.as_ptr();
        match self.owner {
            Owner::Mapping => {
                // SAFETY: what `map` has mapped, and nobody can hold a reference past the area's life.
                unsafe { libc::munmap(p.cast(), self.len * size_of::<T>()) };
            }
            Owner::Heap => {
                if let Ok(layout) = Layout::array::<T>(self.len.max(1)) {
                    // SAFETY: allocated in `heap` with the same layout.
                    unsafe { dealloc(p.cast(), layout) };
                }
            }
        }
    }
}
