//! Attaching one program to one interface.
//!
//! tcx and XDP attachments are links, pinned so that they outlive the process. Kernels before 6.6 have no tcx: there
//! a filter of the clsact qdisc does the same, which outlives the process by itself and is found again by its
//! place and name.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use crate::netlink::{self, Direction, Refused};
use crate::pins::{PinError, Pinned, Pins};
use crate::sys::{self, AttachType};

const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("the kernel refuses the TC program: {0}")]
    Tc(Refused),
    #[error("the kernel refuses the XDP program{}: {native}{}",
        if generic.is_some() { " in native mode" } else { "" },
        generic.as_ref().map(|g| format!("; in generic mode: {g}")).unwrap_or_default())]
    Xdp { native: String, generic: Option<String> },
    #[error("another XDP program is attached already")]
    XdpBusy,
    #[error("the interface is gone")]
    NoDevice,
    #[error(transparent)]
    Pin(#[from] PinError),
}

/// Which way TC programs are attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TcMode {
    /// tcx where the kernel has it, else clsact.
    #[default]
    Auto,
    /// Always clsact.
    Clsact,
}

/// A pinned link.
pub struct PinnedLink {
    fd: OwnedFd,
    path: PathBuf,
}

impl PinnedLink {
    fn new(fd: OwnedFd, pins: &Pins, name: &str) -> Result<PinnedLink, PinError> {
        // Should the pin fail, the descriptor closes, and with it the link goes.
        pins.pin(Pinned::Link, name, fd.as_fd())?;
        Ok(PinnedLink { fd, path: pins.path(Pinned::Link, name) })
    }

    /// Detaches the program; it is off when this returns.
    pub fn detach(self) {
        if let Err(error) = sys::link_detach(self.fd.as_fd()) {
            // The device may have gone, and taken the attachment with it.
            tracing::debug!(path = %self.path.display(), %error, "link was detached already");
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a link's pin");
        }
    }
}

/// A TC program on an interface.
pub enum TcLink {
    Tcx(PinnedLink),
    Clsact { ifindex: u32, direction: Direction },
}

impl TcLink {
    pub fn attach(
        ifindex: u32,
        direction: Direction,
        program: BorrowedFd<'_>,
        mode: TcMode,
        pins: &Pins,
    ) -> Result<TcLink, LinkError> {
        let (attach_type, pin_name) = match direction {
            Direction::Ingress => (AttachType::TcxIngress, format!("{ifindex}-tc")),
            Direction::Egress => (AttachType::TcxEgress, format!("{ifindex}-egress")),
        };
        if mode == TcMode::Auto {
            match sys::link_create(program, ifindex, attach_type, 0) {
                Ok(fd) => return Ok(TcLink::Tcx(PinnedLink::new(fd, pins, &pin_name)?)),
                // What a kernel without tcx says to an attach type that it does not know.
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {}
                Err(e) if e.raw_os_error() == Some(libc::ENODEV) => return Err(LinkError::NoDevice),
                Err(source) => return Err(LinkError::Tc(source.into())),
            }
        }
        netlink::add_clsact(ifindex)
            .and_then(|()| netlink::add_filter(ifindex, direction, program, &pins.filter_name()))
            .map_err(|refused| match refused.source.raw_os_error() {
                Some(libc::ENODEV) => LinkError::NoDevice,
                _ => LinkError::Tc(refused),
            })?;
        Ok(TcLink::Clsact { ifindex, direction })
    }

    pub fn detach(self) {
        match self {
            TcLink::Tcx(link) => link.detach(),
            TcLink::Clsact { ifindex, direction } => {
                if let Err(error) = netlink::delete_filter(ifindex, direction) {
                    tracing::debug!(ifindex, %error, "filter was gone already");
                }
            }
        }
    }
}

/// How an XDP program runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XdpMode {
    Native,
    /// On packets that the kernel has already made: any device can, and it is slow.
    Generic,
}

/// Attaches an XDP program: natively (unless `generic`), else, if `fall_back`, generically. The second answer is
/// the native mode's refusal.
pub fn attach_xdp(
    ifindex: u32,
    program: BorrowedFd<'_>,
    generic: bool,
    fall_back: bool,
    pins: &Pins,
) -> Result<(PinnedLink, XdpMode, Option<String>), LinkError> {
    let pin_name = format!("{ifindex}-xdp");
    let mut native = None;
    if !generic {
        match sys::link_create(program, ifindex, AttachType::Xdp, XDP_FLAGS_DRV_MODE) {
            Ok(fd) => return Ok((PinnedLink::new(fd, pins, &pin_name)?, XdpMode::Native, None)),
            Err(e) => native = Some(refusal(ifindex, program, XDP_FLAGS_DRV_MODE, &e)?),
        }
        if !fall_back {
            return Err(LinkError::Xdp { native: native.unwrap_or_default(), generic: None });
        }
    }
    match sys::link_create(program, ifindex, AttachType::Xdp, XDP_FLAGS_SKB_MODE) {
        Ok(fd) => Ok((PinnedLink::new(fd, pins, &pin_name)?, XdpMode::Generic, native)),
        Err(e) => {
            let generic = refusal(ifindex, program, XDP_FLAGS_SKB_MODE, &e)?;
            Err(match native {
                Some(native) => LinkError::Xdp { native, generic: Some(generic) },
                None => LinkError::Xdp { native: generic, generic: None },
            })
        }
    }
}

/// The reason for a refusal, in the kernel's words where it has some.
fn refusal(
    ifindex: u32,
    program: BorrowedFd<'_>,
    flags: u32,
    error: &io::Error,
) -> Result<String, LinkError> {
    match error.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => Err(LinkError::XdpBusy),
        Some(libc::ENODEV) => Err(LinkError::NoDevice),
        _ => Ok(match netlink::xdp_objection(ifindex, program, flags) {
            Some(message) => format!("{message} ({error})"),
            None => error.to_string(),
        }),
    }
}

fn tracepoint_id(group: &str, event: &str) -> Option<String> {
    [crate::system::TRACEFS, "/sys/kernel/debug/tracing"]
        .iter()
        .find_map(|root| std::fs::read_to_string(format!("{root}/events/{group}/{event}/id")).ok())
}

/// Attaches a program to a kernel tracepoint; tracefs is mounted if it is not.
pub fn attach_tracepoint(
    group: &str,
    event: &str,
    program: BorrowedFd<'_>,
    pins: &Pins,
) -> Result<PinnedLink, String> {
    let id = match tracepoint_id(group, event) {
        Some(id) => id,
        None => {
            crate::system::mount_tracefs()
                .map_err(|e| format!("tracefs cannot be mounted at {}: {e}", crate::system::TRACEFS))?;
            tracepoint_id(group, event)
                .ok_or_else(|| format!("the kernel has no tracepoint {group}:{event}"))?
        }
    };
    let id = id
        .trim()
        .parse()
        .map_err(|_| format!("the tracepoint {group}:{event} has the id `{}`", id.trim()))?;
    let event_fd = sys::open_tracepoint(id).map_err(|e| format!("perf_event_open: {e}"))?;
    let target = std::os::fd::AsRawFd::as_raw_fd(&event_fd) as u32;
    let link = sys::link_create(program, target, AttachType::PerfEvent, 0)
        .map_err(|e| format!("the kernel refuses the tracepoint program: {e}"))?;
    PinnedLink::new(link, pins, event).map_err(|e| e.to_string())
}
