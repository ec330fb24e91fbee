//! Ports: announcing an interface to the programs, and attaching the programs to it.
//!
//! The order keeps the host's own stack from ever seeing a port's frames: the maps are written before anything is
//! attached, TC is attached before XDP and detached after it, and only then the maps forget the port.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use switch_common::program;
use switch_dpif::action::DpPort;

use crate::ebpf::EbpfDatapath;
use crate::links::{LinkError, PinnedLink, TcLink, XdpMode, attach_tracepoint, attach_xdp};
use crate::netlink::Direction;
use crate::ports::{IfindexCrowded, PortSettings};
use crate::sys;

/// Which programs take a port's packets. TC always has one, for what XDP passes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    Tc,
    /// Native, or generic if that is refused; `generic` asks for the latter at once.
    Xdp {
        generic: bool,
    },
}

/// A port to attach.
#[derive(Clone, Copy, Debug)]
pub struct PortRequest<'a> {
    pub port: DpPort,
    pub ifindex: u32,
    /// For messages only.
    pub name: &'a str,
    pub hook: Hook,
    pub settings: PortSettings,
}

/// How a port came to be attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortStatus {
    /// `None` for a port with TC alone.
    pub xdp: Option<XdpMode>,
    /// Whether TC is a tcx link, else a filter of the clsact qdisc.
    pub tcx: bool,
    /// Why the kernel refused native mode, if it runs generically for that.
    pub native_refused: Option<String>,
}

/// Why an interface could not become a port. Nothing is left behind on it.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("datapath port {0} is taken")]
    PortTaken(u16),
    #[error("{0} cannot be a datapath port: 1 to 65535 can")]
    BadPort(u16),
    #[error("interface {name} is datapath port {port} already")]
    InterfaceTaken { name: String, port: u16 },
    #[error("{name}: {source}")]
    Crowded { name: String, source: IfindexCrowded },
    #[error("{name}: {source}")]
    Link { name: String, source: LinkError },
    #[error("{name}: the device map does not take it: {source}")]
    Transmit { name: String, source: std::io::Error },
    #[error("no such datapath port: {0}")]
    NoPort(u16),
    #[error("the upcall pair is attached already")]
    UpcallTaken,
    #[error("queue {queue}: {source}")]
    Socket { queue: u32, source: std::io::Error },
}

struct Port {
    ifindex: u32,
    settings: PortSettings,
    status: PortStatus,
    tc: TcLink,
    xdp: Option<PinnedLink>,
}

/// Everything that is attached.
#[derive(Default)]
pub(crate) struct Attachments {
    ports: BTreeMap<u16, Port>,
    upcall: Option<(TcLink, PinnedLink)>,
    tracepoints: Vec<PinnedLink>,
}

impl Attachments {
    fn contains(&self, port: DpPort) -> bool {
        self.ports.contains_key(&port.0)
    }
}

impl EbpfDatapath {
    /// A program that [`EbpfDatapath::create`] has made sure of.
    fn known_program(&self, name: &str) -> Result<BorrowedFd<'_>, LinkError> {
        self.program(name).ok_or_else(|| {
            let source = std::io::Error::new(std::io::ErrorKind::NotFound, format!("no program {name}"));
            LinkError::Tc(source.into())
        })
    }

    /// Makes an interface a port. The caller has made it promiscuous, switched its VLAN offload off where that
    /// matters, and knows whether it takes XDP output.
    pub fn attach_port(&self, request: &PortRequest<'_>) -> Result<PortStatus, AttachError> {
        let PortRequest { port, ifindex, name, hook, settings } = *request;
        if port.0 == 0 {
            return Err(AttachError::BadPort(port.0));
        }
        let mut attachments = self.attachments.lock();
        if attachments.contains(port) {
            return Err(AttachError::PortTaken(port.0));
        }
        if let Some((port, _)) = attachments.ports.iter().find(|(_, p)| p.ifindex == ifindex) {
            return Err(AttachError::InterfaceTaken { name: name.to_owned(), port: *port });
        }
        self.ports
            .add(port.0, ifindex, &settings)
            .map_err(|source| AttachError::Crowded { name: name.to_owned(), source })?;
        let attached = self.set_transmit(port, ifindex, name, settings.xdp_output).and_then(|()| {
            self.attach_programs(ifindex, hook)
                .map_err(|source| AttachError::Link { name: name.to_owned(), source })
        });
        let (tc, xdp, status) = match attached {
            Ok(attached) => attached,
            Err(error) => {
                self.forget(port, ifindex);
                return Err(error);
            }
        };
        attachments.ports.insert(port.0, Port { ifindex, settings, status: status.clone(), tc, xdp });
        if settings.xdp_output {
            self.set_xdp_output_of_flows(port.0);
        }
        Ok(status)
    }

    fn attach_programs(
        &self,
        ifindex: u32,
        hook: Hook,
    ) -> Result<(TcLink, Option<PinnedLink>, PortStatus), LinkError> {
        let program = self.known_program(program::TC)?;
        let tc = TcLink::attach(ifindex, Direction::Ingress, program, self.tc_mode, &self.pins)?;
        let tcx = matches!(tc, TcLink::Tcx(_));
        let Hook::Xdp { generic } = hook else {
            return Ok((tc, None, PortStatus { xdp: None, tcx, native_refused: None }));
        };
        let attached = self
            .known_program(program::XDP)
            .and_then(|program| attach_xdp(ifindex, program, generic, true, &self.pins));
        match attached {
            Ok((link, mode, native_refused)) => {
                Ok((tc, Some(link), PortStatus { xdp: Some(mode), tcx, native_refused }))
            }
            Err(error) => {
                tc.detach();
                Err(error)
            }
        }
    }

    /// Puts an interface into the device map, or takes it out.
    fn set_transmit(&self, port: DpPort, ifindex: u32, name: &str, on: bool) -> Result<(), AttachError> {
        let key = u32::from(port.0);
        let result = if on {
            // `struct bpf_devmap_val`: interface index, and no program.
            let value = u64::from(ifindex).to_le_bytes();
            sys::map_update(self.tx.as_fd(), key, &value)
        } else {
            sys::map_delete(self.tx.as_fd(), key)
        };
        result.map_err(|source| AttachError::Transmit { name: name.to_owned(), source })
    }

    fn forget(&self, port: DpPort, ifindex: u32) {
        self.ports.remove(port.0, ifindex);
        if let Err(error) = self.set_transmit(port, ifindex, "", false) {
            tracing::warn!(port = port.0, %error, "a port's entry stays in the device map");
        }
    }

    /// Detaches a port; an interface that is gone already is no error.
    pub fn detach_port(&self, port: DpPort) -> Result<(), AttachError> {
        let mut attachments = self.attachments.lock();
        let p = attachments.ports.remove(&port.0).ok_or(AttachError::NoPort(port.0))?;
        if let Some(xdp) = p.xdp {
            xdp.detach();
        }
        p.tc.detach();
        self.forget(port, p.ifindex);
        if p.settings.xdp_output {
            self.set_xdp_output_of_flows(port.0);
        }
        Ok(())
    }

    /// Changes what can change about a port while it is attached.
    pub fn update_port(&self, port: DpPort, settings: PortSettings) -> Result<(), AttachError> {
        let mut attachments = self.attachments.lock();
        let p = attachments.ports.get_mut(&port.0).ok_or(AttachError::NoPort(port.0))?;
        let (before, ifindex) = (p.settings, p.ifindex);
        if settings.xdp_output && !before.xdp_output {
            // The device map before the flag by which programs use it.
            self.set_transmit(port, ifindex, &format!("interface {ifindex}"), true)?;
        }
        p.settings = settings;
        self.ports.update(port.0, &settings);
        if settings.xdp_output != before.xdp_output {
            self.set_xdp_output_of_flows(port.0);
        }
        if before.xdp_output && !settings.xdp_output {
            self.set_transmit(port, ifindex, &format!("interface {ifindex}"), false)?;
        }
        Ok(())
    }

    /// How a port is attached, and its settings.
    pub fn port_status(&self, port: DpPort) -> Option<(PortStatus, PortSettings)> {
        self.attachments.lock().ports.get(&port.0).map(|p| (p.status.clone(), p.settings))
    }

    /// Attaches the programs of the upcall pair: the header goes on at TC egress of `up0`, and native XDP on `up1`
    /// hands frames to the sockets. `up0` must be the interface that the datapath was made for.
    pub fn attach_upcall(&self, up0: u32, up1: u32) -> Result<(), AttachError> {
        let fail = |name: &str| {
            let name = name.to_owned();
            move |source| AttachError::Link { name, source }
        };
        let mut attachments = self.attachments.lock();
        if attachments.upcall.is_some() {
            return Err(AttachError::UpcallTaken);
        }
        let push = self.known_program(program::UPCALL_PUSH).map_err(fail("upcall pair"))?;
        let tc = TcLink::attach(up0, Direction::Egress, push, self.tc_mode, &self.pins)
            .map_err(fail("upcall pair, near end"))?;
        let receive = self
            .known_program(program::UPCALL_XDP)
            .and_then(|program| attach_xdp(up1, program, false, false, &self.pins));
        match receive {
            Ok((xdp, _, _)) => {
                attachments.upcall = Some((tc, xdp));
                Ok(())
            }
            Err(error) => {
                tc.detach();
                Err(fail("upcall pair, far end")(error))
            }
        }
    }

    /// Gives a queue of the upcall pair its AF_XDP socket.
    pub fn set_xsk(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), AttachError> {
        sys::map_update(self.xsks.as_fd(), queue, &socket.as_raw_fd().to_ne_bytes())
            .map_err(|source| AttachError::Socket { queue, source })
    }

    /// Takes a queue's socket away.
    pub fn unset_xsk(&self, queue: u32) -> Result<(), AttachError> {
        sys::map_delete(self.xsks.as_fd(), queue).map_err(|source| AttachError::Socket { queue, source })
    }

    /// Counts XDP transmits that fail after the program has returned, which only the kernel's tracepoints tell.
    /// An error is one line that says why they cannot be counted; everything else works without.
    pub fn attach_tracepoints(&self) -> Result<(), String> {
        let mut attachments = self.attachments.lock();
        let mut links = Vec::new();
        for (name, event) in
            [(program::XDP_TRANSMIT, "xdp_devmap_xmit"), (program::XDP_REDIRECT_ERR, "xdp_redirect_err")]
        {
            let attached = self
                .known_program(name)
                .map_err(|e| e.to_string())
                .and_then(|program| attach_tracepoint("xdp", event, program, &self.pins));
            match attached {
                Ok(link) => links.push(link),
                Err(error) => {
                    links.into_iter().for_each(PinnedLink::detach);
                    return Err(error);
                }
            }
        }
        attachments.tracepoints.extend(links);
        Ok(())
    }

    /// Detaches all ports, the upcall pair and the tracepoints.
    pub(crate) fn detach_all(&self) {
        let ports: Vec<u16> = self.attachments.lock().ports.keys().copied().collect();
        for port in ports {
            if let Err(error) = self.detach_port(DpPort(port)) {
                tracing::debug!(port, %error, "port was detached already");
            }
        }
        let mut attachments = self.attachments.lock();
        if let Some((tc, xdp)) = attachments.upcall.take() {
            tc.detach();
            xdp.detach();
        }
        std::mem::take(&mut attachments.tracepoints).into_iter().for_each(PinnedLink::detach);
    }
}
