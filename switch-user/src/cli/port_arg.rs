//! The notation of `--bridge` and `--port`: `[BRIDGE/]NAME[,OPTION=VALUE]...`.
//!
//! Turns text into the configuration's own types and says which part of the text is wrong. Whether the named
//! bridges exist, and whether a port is named twice, is for whoever puts the whole configuration together.

use std::str::FromStr;

use crate::config::{HookWish, PortConfig, PriorityTags, VlanConfig, VlanMode};

/// Largest VLAN identifier that the database's schema admits (IEEE 802.1Q reserves 4095, Open vSwitch takes it).
const MAX_VLAN: u16 = 4095;
/// OpenFlow port numbers that a port may ask for; those from 0xff00 on are reserved (OpenFlow 1.0, `OFPP_MAX`).
const OFPORTS: std::ops::RangeInclusive<u16> = 1..=0xfeff;
/// `IFNAMSIZ` without its terminating zero, in bytes.
const MAX_NAME: usize = 15;

/// One `--port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortArg {
    /// The bridge that was named; none means the first one of the command line.
    pub bridge: Option<String>,
    /// The interface.
    pub name: String,
    pub config: PortConfig,
}

/// One `--bridge`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeArg {
    pub name: String,
    /// VLAN settings of its internal port.
    pub local: VlanConfig,
}

/// What is wrong with a `--port` or a `--bridge`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PortArgError {
    #[error("{what} has no name before the first ','")]
    NoName { what: &'static str },
    #[error("'{name}' cannot be the name of a {what}: {why}")]
    BadName { what: &'static str, name: String, why: &'static str },
    #[error("'{option}' needs a value: {option}=...")]
    NoValue { option: String },
    #[error("there is no option '{option}'; there are {known}")]
    UnknownOption { option: String, known: &'static str },
    #[error("option '{option}' is given twice")]
    OptionTwice { option: &'static str },
    #[error("{option}={value}: '{part}' is not a VLAN, a number from 0 to {MAX_VLAN}")]
    BadVlan { option: &'static str, value: String, part: String },
    #[error("ofport={value}: an OpenFlow port number is from 1 to {}", OFPORTS.end())]
    BadOfPort { value: String },
    #[error("{option}={value}: it is one of {choices}")]
    BadChoice { option: &'static str, value: String, choices: &'static str },
    #[error("{first} and {second} do not go together: {why}")]
    Conflict { first: &'static str, second: &'static str, why: &'static str },
}

impl FromStr for PortArg {
    type Err = PortArgError;

    fn from_str(text: &str) -> Result<PortArg, PortArgError> {
        let (place, options) = split_name(text);
        let (bridge, name) = match place.split_once('/') {
            Some((bridge, name)) => (Some(checked_name("bridge", bridge)?), name),
            None => (None, place),
        };
        let name = checked_name("port", name)?;
        let options = Options::parse(options, true)?;
        let config = PortConfig {
            hook: options.hook.unwrap_or_default(),
            ofport_request: options.ofport,
            vlan: options.vlan()?,
        };
        Ok(PortArg { bridge, name, config })
    }
}

impl FromStr for BridgeArg {
    type Err = PortArgError;

    fn from_str(text: &str) -> Result<BridgeArg, PortArgError> {
        let (name, options) = split_name(text);
        let name = checked_name("bridge", name)?;
        Ok(BridgeArg { name, local: Options::parse(options, false)?.vlan()? })
    }
}

fn split_name(text: &str) -> (&str, Option<&str>) {
    match text.split_once(',') {
        Some((name, options)) => (name, Some(options)),
        None => (text, None),
    }
}

/// Linux's rule for interface names (`dev_valid_name`), less what this notation needs for itself.
fn checked_name(what: &'static str, name: &str) -> Result<String, PortArgError> {
    let why = if name.is_empty() {
        return Err(PortArgError::NoName { what });
    } else if name.len() > MAX_NAME {
        "it is longer than 15 bytes"
    } else if name == "." || name == ".." {
        "Linux reserves it"
    } else if name.contains('=') {
        "an option stands where the name belongs"
    } else if name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control()) {
        "it holds '/', ':' or blanks"
    } else {
        return Ok(name.to_owned());
    };
    Err(PortArgError::BadName { what, name: name.to_owned(), why })
}

const PORT_OPTIONS: &str = "tag, trunks, native, mode, priority-tags, hook, ofport";
const BRIDGE_OPTIONS: &str = "tag, trunks, native, mode, priority-tags";

/// The options as they were given.
#[derive(Default)]
struct Options {
    tag: Option<u16>,
    trunks: Option<Vec<u16>>,
    native: Option<u16>,
    mode: Option<VlanMode>,
    priority_tags: Option<PriorityTags>,
    hook: Option<HookWish>,
    ofport: Option<u16>,
}

impl Options {
    /// `all`: also those that a bridge's internal port does not have.
    fn parse(text: Option<&str>, all: bool) -> Result<Options, PortArgError> {
        let mut options = Options::default();
        let Some(text) = text else { return Ok(options) };
        for option in text.split(',') {
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (option, None),
            };
            let value = match value {
                Some(value) if !value.is_empty() => Ok(value),
                _ => Err(PortArgError::NoValue { option: name.to_owned() }),
            };
            match name {
                "tag" => set(&mut options.tag, "tag", vlan("tag", value?)?)?,
                "native" => set(&mut options.native, "native", vlan("native", value?)?)?,
                "trunks" => set(&mut options.trunks, "trunks", vlans(value?)?)?,
                "mode" => set(&mut options.mode, "mode", choice("mode", value?, MODES)?)?,
                "priority-tags" => {
                    let chosen = choice("priority-tags", value?, PRIORITY_TAGS)?;
                    set(&mut options.priority_tags, "priority-tags", chosen)?;
                }
                "hook" if all => set(&mut options.hook, "hook", choice("hook", value?, HOOKS)?)?,
                "ofport" if all => set(&mut options.ofport, "ofport", ofport(value?)?)?,
                _ => {
                    let known = if all { PORT_OPTIONS } else { BRIDGE_OPTIONS };
                    return Err(PortArgError::UnknownOption { option: name.to_owned(), known });
                }
            }
        }
        Ok(options)
    }

    /// Open vSwitch's defaults (ovs-vswitchd.conf.db(5), `Port:vlan_mode`): a tag alone makes an access port,
    /// nothing a trunk. `native` is this notation's own word for the tag of a native VLAN. Where Open vSwitch
    /// would warn and ignore a setting, the contradiction is refused.
    fn vlan(self) -> Result<VlanConfig, PortArgError> {
        let conflict = |first, second, why| Err(PortArgError::Conflict { first, second, why });
        if self.tag.is_some() && self.native.is_some() {
            return conflict(
                "tag",
                "native",
                "tag is for access ports, native for trunks with an untagged VLAN",
            );
        }
        let mode = match self.mode {
            Some(mode) => mode,
            None if self.native.is_some() => VlanMode::NativeUntagged,
            None if self.tag.is_some() => VlanMode::Access,
            None => VlanMode::Trunk,
        };
        let tag = self.tag.or(self.native);
        match mode {
            VlanMode::Access if self.native.is_some() => {
                return conflict("native", "mode=access", "an access port has a tag: tag=N");
            }
            VlanMode::Access if self.trunks.is_some() && self.mode.is_none() => {
                return conflict(
                    "tag",
                    "trunks",
                    "a tag makes an access port; for the untagged VLAN of a trunk say native=N",
                );
            }
            VlanMode::Access if self.trunks.is_some() => {
                return conflict("trunks", "mode=access", "an access port carries one VLAN");
            }
            VlanMode::Trunk if tag.is_some() => {
                let first = if self.tag.is_some() { "tag" } else { "native" };
                return conflict(
                    first,
                    "mode=trunk",
                    "a trunk has no untagged VLAN; say mode=native-untagged or mode=native-tagged",
                );
            }
            _ => {}
        }
        Ok(VlanConfig {
            mode,
            tag,
            trunks: self.trunks.unwrap_or_default(),
            priority_tags: self.priority_tags.unwrap_or(PriorityTags::Never),
        })
    }
}

fn set<T>(slot: &mut Option<T>, option: &'static str, value: T) -> Result<(), PortArgError> {
    match slot.replace(value) {
        Some(_) => Err(PortArgError::OptionTwice { option }),
        None => Ok(()),
    }
}

const MODES: &[(&str, VlanMode)] = &[
    ("access", VlanMode::Access),
    ("trunk", VlanMode::Trunk),
    ("native-tagged", VlanMode::NativeTagged),
    ("native-untagged", VlanMode::NativeUntagged),
];
const PRIORITY_TAGS: &[(&str, PriorityTags)] =
    &[("no", PriorityTags::Never), ("if-nonzero", PriorityTags::IfNonzero), ("always", PriorityTags::Always)];
const HOOKS: &[(&str, HookWish)] = &[("auto", HookWish::Auto), ("tc", HookWish::Tc), ("xdp", HookWish::Xdp)];

fn choice<T: Copy>(
    option: &'static str,
    value: &str,
    choices: &[(&'static str, T)],
) -> Result<T, PortArgError> {
    match choices.iter().find(|(name, _)| *name == value) {
        Some((_, chosen)) => Ok(*chosen),
        None => {
            let choices = match option {
                "mode" => "access, trunk, native-tagged, native-untagged",
                "priority-tags" => "no, if-nonzero, always",
                _ => "auto, tc, xdp",
            };
            Err(PortArgError::BadChoice { option, value: value.to_owned(), choices })
        }
    }
}

/// Plain decimal digits: `str::parse` would take a sign as well.
fn number(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn vlan(option: &'static str, value: &str) -> Result<u16, PortArgError> {
    vlan_part(option, value, value)
}

fn vlan_part(option: &'static str, value: &str, part: &str) -> Result<u16, PortArgError> {
    number(part).filter(|n| *n <= MAX_VLAN).ok_or_else(|| PortArgError::BadVlan {
        option,
        value: value.to_owned(),
        part: part.to_owned(),
    })
}

/// VLANs joined with '+' (a ',' separates options), in ascending order, each once.
fn vlans(value: &str) -> Result<Vec<u16>, PortArgError> {
    let mut vlans =
        value.split('+').map(|part| vlan_part("trunks", value, part)).collect::<Result<Vec<_>, _>>()?;
    vlans.sort_unstable();
    vlans.dedup();
    Ok(vlans)
}

fn ofport(value: &str) -> Result<u16, PortArgError> {
    number(value)
        .filter(|n| OFPORTS.contains(n))
        .ok_or_else(|| PortArgError::BadOfPort { value: value.to_owned() })
}

#[cfg(test)]
#[path = "port_arg_tests.rs"]
mod tests;
