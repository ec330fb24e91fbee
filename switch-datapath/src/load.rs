//! Loading the eBPF object: maps of the wanted sizes, constants, programs, program arrays, pins.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use aya::maps::{Map, MapData};
use aya::programs::{Program, ProgramError};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use hashbrown::HashMap;
use switch_common::bucket::RateLimit;
use switch_common::counter::COUNTER_ROW;
use switch_common::flow::CACHE_ENTRIES;
use switch_common::hash::{HASH_KEY_LEN, HashKey};
use switch_common::key::KINDS;
use switch_common::port::{IFINDEX_SLOTS, MAX_PORTS};
use switch_common::program;

use crate::memory::{Area, Plain};
use crate::object::{self, NotEmbedded};
use crate::pins::{PinError, Pinned, Pins};
use crate::ports::PortTables;
use crate::sys;
use crate::table::TableMemory;
use crate::table::masks::MaskMemory;

/// Meters of the datapath.
pub const METERS: u32 = 1024;

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    NotEmbedded(#[from] NotEmbedded),
    #[error("the eBPF object cannot be loaded: {0}")]
    Object(String),
    #[error("the kernel refuses the program {program}: {reason}")]
    Program { program: String, reason: String },
    #[error("the eBPF object has no {what} named {name}: run `cargo xtask build` again")]
    Missing { what: &'static str, name: String },
    #[error("map {name}: {source}")]
    Map { name: String, source: io::Error },
    #[error("no random numbers: {0}")]
    Random(io::Error),
    #[error(transparent)]
    Pin(#[from] PinError),
}

/// Numbers that the programs are loaded with.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Slots of the flow table, slot 0 included.
    pub slots: u32,
    /// Slots that `Full` flows can have, likewise.
    pub full_slots: u32,
    pub actions: u32,
    /// A power of two.
    pub buckets: u32,
    pub cpus: u32,
    /// Interface index of up0; 0 for none.
    pub upcall_ifindex: u32,
    pub vlan_limit: u32,
}

/// What was loaded.
pub struct Loaded {
    pub programs: HashMap<String, OwnedFd>,
    pub table: TableMemory,
    pub ports: PortTables,
    pub meters: Area<RateLimit>,
    pub counters: Area<[u64; COUNTER_ROW]>,
    /// Device map of the ports.
    pub tx: OwnedFd,
    /// Sockets of the upcall pair's queues.
    pub xsks: OwnedFd,
    pub hash_key: HashKey,
}

impl Loaded {
    pub fn program(&self, name: &str) -> Result<BorrowedFd<'_>, LoadError> {
        match self.programs.get(name) {
            Some(fd) => Ok(fd.as_fd()),
            None => Err(LoadError::Missing { what: "program", name: name.to_owned() }),
        }
    }
}

/// Loads everything and pins it. The pins' folders must exist; on an error, some pins may have been made.
pub fn load(sizes: &Sizes, pins: &Pins) -> Result<Loaded, LoadError> {
    let hash_key: HashKey = random_words()?;
    let [magic_low, magic_high] = random_words::<2>()?;
    let magic = u64::from(magic_low) | u64::from(magic_high) << 32;
    let mut ebpf = load_object(sizes, &hash_key, magic)?;

    let mut programs = HashMap::new();
    for (name, p) in ebpf.programs_mut() {
        let fd = load_program(name, p)?;
        pins.pin(Pinned::Program, name, fd.as_fd())?;
        programs.insert(name.to_owned(), fd);
    }
    let mut maps = HashMap::new();
    for (name, map) in ebpf.maps() {
        let Some(data) = map_data(map) else { continue };
        let fd = data.fd().as_fd().try_clone_to_owned();
        let fd = fd.map_err(|source| LoadError::Map { name: name.to_owned(), source })?;
        // The sections of constants are not reached by name; programs hold them.
        if !name.starts_with('.') {
            pins.pin(Pinned::Map, name, fd.as_fd())?;
        }
        maps.insert(name.to_owned(), fd);
    }
    // The object's own descriptors are not needed any more; ours and the pins hold everything.
    drop(ebpf);
    fill_program_array(&maps, "XDP_PROGS", program::XDP_CALLS, &programs)?;
    fill_program_array(&maps, "TC_PROGS", program::TC_CALLS, &programs)?;

    let cpus = sizes.cpus as usize;
    let slots = sizes.slots as usize;
    Ok(Loaded {
        table: TableMemory {
            flows: area(&maps, "FLOWS", slots)?,
            rest: area(&maps, "FLOW_REST", sizes.full_slots as usize)?,
            stats: area(&maps, "FLOW_STATS", slots * cpus)?,
            actions: area(&maps, "ACTIONS", sizes.actions as usize)?,
            buckets: area(&maps, "BUCKETS", sizes.buckets as usize)?,
            masks: [
                MaskMemory::Short(area(&maps, "MASKS_SHORT", 1)?),
                MaskMemory::Long(area(&maps, "MASKS_LONG", 1)?),
                MaskMemory::Full(area(&maps, "MASKS_FULL", 1)?),
            ],
            order: area(&maps, "MASK_ORDER", KINDS)?,
        },
        ports: PortTables {
            ports: area(&maps, "PORTS", MAX_PORTS as usize)?,
            ifindex: area(&maps, "IFINDEX", IFINDEX_SLOTS as usize)?,
            limits: area(&maps, "PORT_LIMITS", MAX_PORTS as usize)?,
            counters: area(&maps, "PORT_COUNTERS", MAX_PORTS as usize * cpus)?,
            cpus,
        },
        meters: area(&maps, "METERS", METERS as usize)?,
        counters: area(&maps, "COUNTERS", cpus)?,
        tx: take(&mut maps, "TX")?,
        xsks: take(&mut maps, "XSKS")?,
        programs,
        hash_key,
    })
}

fn load_object(sizes: &Sizes, hash_key: &HashKey, magic: u64) -> Result<Ebpf, LoadError> {
    EbpfLoader::new()
        .verifier_log_level(VerifierLogLevel::DEBUG)
        .override_global("BUCKET_MASK", &(sizes.buckets - 1), true)
        .override_global("FLOW_SLOTS", &sizes.slots, true)
        .override_global("FULL_SLOTS", &sizes.full_slots, false)
        .override_global("MAGIC", &magic, true)
        .override_global("UPCALL_IFINDEX", &sizes.upcall_ifindex, true)
        .override_global("VLAN_LIMIT", &sizes.vlan_limit, true)
        .override_global("CPUS", &sizes.cpus, false)
        .override_global("HASH_KEY", hash_key, true)
        .map_max_entries("FLOWS", sizes.slots)
        .map_max_entries("FLOW_REST", sizes.full_slots)
        .map_max_entries("FLOW_STATS", sizes.slots.saturating_mul(sizes.cpus))
        .map_max_entries("ACTIONS", sizes.actions)
        .map_max_entries("BUCKETS", sizes.buckets)
        .map_max_entries("PORT_COUNTERS", MAX_PORTS.saturating_mul(sizes.cpus))
        .map_max_entries("METERS", METERS)
        .map_max_entries("COUNTERS", sizes.cpus)
        .map_max_entries("CACHE_SHORT", CACHE_ENTRIES.saturating_mul(sizes.cpus))
        .map_max_entries("CACHE_LONG", CACHE_ENTRIES.saturating_mul(sizes.cpus))
        .load(object::bytes()?)
        .map_err(|error| LoadError::Object(chain(&error)))
}

fn load_program(name: &str, p: &mut Program) -> Result<OwnedFd, LoadError> {
    let (loaded, fd) = match p {
        Program::Xdp(p) => (p.load(), p.fd()),
        Program::SchedClassifier(p) => (p.load(), p.fd()),
        Program::TracePoint(p) => (p.load(), p.fd()),
        _ => return Err(LoadError::Object(format!("program {name} is of an unknown type"))),
    };
    let fail = |error: ProgramError| LoadError::Program { program: name.to_owned(), reason: reason(&error) };
    loaded.map_err(fail)?;
    let fd = fd.map_err(fail)?;
    fd.as_fd().try_clone_to_owned().map_err(|e| fail(ProgramError::IOError(e)))
}

/// The error, and of the verifier's log the lines that say why.
fn reason(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let mut lines: Vec<&str> = log
                .lines()
                .map(str::trim)
                .filter(|l| {
                    !l.is_empty() && !l.starts_with("processed ") && !l.starts_with("verification time")
                })
                .collect();
            let lines = lines.split_off(lines.len().saturating_sub(6));
            format!("{io_error}: {}", lines.join(" | "))
        }
        other => chain(other),
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text.replace('\n', " ")
}

fn map_data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(m) | Map::PerCpuArray(m) | Map::DevMap(m) | Map::XskMap(m) | Map::ProgramArray(m) => {
            Some(m)
        }
        _ => None,
    }
}

fn find<'a>(maps: &'a HashMap<String, OwnedFd>, name: &str) -> Result<&'a OwnedFd, LoadError> {
    maps.get(name).ok_or_else(|| LoadError::Missing { what: "map", name: name.to_owned() })
}

fn take(maps: &mut HashMap<String, OwnedFd>, name: &str) -> Result<OwnedFd, LoadError> {
    maps.remove(name).ok_or_else(|| LoadError::Missing { what: "map", name: name.to_owned() })
}

fn area<T: Plain>(maps: &HashMap<String, OwnedFd>, name: &str, len: usize) -> Result<Area<T>, LoadError> {
    Area::map(find(maps, name)?.as_fd(), len)
        .map_err(|source| LoadError::Map { name: name.to_owned(), source })
}

fn fill_program_array(
    maps: &HashMap<String, OwnedFd>,
    array: &str,
    calls: &[(u32, &str)],
    programs: &HashMap<String, OwnedFd>,
) -> Result<(), LoadError> {
    let map = find(maps, array)?;
    for (index, name) in calls {
        let Some(fd) = programs.get(*name) else {
            return Err(LoadError::Missing { what: "program", name: (*name).to_owned() });
        };
        sys::map_update(map.as_fd(), *index, &fd.as_raw_fd().to_ne_bytes())
            .map_err(|source| LoadError::Map { name: array.to_owned(), source })?;
    }
    Ok(())
}

/// Words that nobody can guess.
fn random_words<const N: usize>() -> Result<[u32; N], LoadError> {
    const { assert!(N * 4 <= 512 && HASH_KEY_LEN * 4 <= 512) };
    let mut words = [0u32; N];
    let len = size_of_val(&words);
    // SAFETY: pointer and length are the array's. Up to 256 bytes come at once or not at all; longer requests
    // can be cut short only by a signal, which the check below takes for a failure.
    let n = unsafe { libc::getrandom(words.as_mut_ptr().cast(), len, 0) };
    if n == len as isize { Ok(words) } else { Err(LoadError::Random(io::Error::last_os_error())) }
}
