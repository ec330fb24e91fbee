//! The bridges and ports that there are: for errors about those that there are not, and for names in place of
//! numbers.

use std::collections::BTreeMap;

use crate::control::report::ShowReport;

/// A name that the daemon does not have.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    #[error("there is no bridge '{name}'; there {}", listed(.have))]
    NoBridge { name: String, have: Vec<String> },
    #[error("there is no port '{name}'; there {}", listed(.have))]
    NoPort { name: String, have: Vec<String> },
}

/// "are br0, br1", "is br0", "is none".
fn listed(names: &[String]) -> String {
    match names {
        [] => "is none".to_owned(),
        [one] => format!("is {one}"),
        many => format!("are {}", many.join(", ")),
    }
}

/// That this bridge is there.
pub fn check_bridge(show: &ShowReport, name: &str) -> Result<(), NameError> {
    let have: Vec<_> = show.bridges.iter().map(|b| b.name.clone()).collect();
    if have.iter().any(|n| n == name) {
        return Ok(());
    }
    Err(NameError::NoBridge { name: name.to_owned(), have })
}

/// That this port is there, in whatever bridge.
pub fn check_port(show: &ShowReport, name: &str) -> Result<(), NameError> {
    let have: Vec<_> = show.bridges.iter().flat_map(|b| &b.ports).map(|p| p.name.clone()).collect();
    if have.iter().any(|n| n == name) {
        return Ok(());
    }
    Err(NameError::NoPort { name: name.to_owned(), have })
}

/// Names of datapath ports.
#[derive(Clone, Debug, Default)]
pub struct PortNames(BTreeMap<u16, String>);

impl PortNames {
    pub fn new(show: &ShowReport) -> PortNames {
        PortNames(show.bridges.iter().flat_map(|b| &b.ports).map(|p| (p.dp_port, p.name.clone())).collect())
    }

    /// A match in OVS's notation with the name in `in_port(..)`. A number without a name stays.
    pub fn in_match(&self, key: &str) -> String {
        const FIELD: &str = "in_port(";
        let named = key.find(FIELD).and_then(|at| {
            let start = at + FIELD.len();
            let end = start + key[start..].find(')')?;
            let name = self.0.get(&key[start..end].parse().ok()?)?;
            Some(format!("{}{name}{}", &key[..start], &key[end..]))
        });
        named.unwrap_or_else(|| key.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::report::{BridgeReport, PortReport};

    fn show() -> ShowReport {
        let port = |name: &str, dp_port| PortReport { name: name.into(), dp_port, ..PortReport::default() };
        let bridge = |name: &str, ports| BridgeReport { name: name.into(), ports, ..BridgeReport::default() };
        ShowReport {
            bridges: vec![
                bridge("br0", vec![port("br0", 1), port("eth1", 2)]),
                bridge("br1", vec![port("br1", 3)]),
            ],
            ..ShowReport::default()
        }
    }

    #[test]
    fn unknown_names_list_what_exists() {
        assert_eq!(check_bridge(&show(), "br1"), Ok(()));
        let text = check_bridge(&show(), "br2").expect_err("unknown").to_string();
        assert_eq!(text, "there is no bridge 'br2'; there are br0, br1");
        assert_eq!(check_port(&show(), "eth1"), Ok(()));
        let text = check_port(&show(), "eth2").expect_err("unknown").to_string();
        assert_eq!(text, "there is no port 'eth2'; there are br0, eth1, br1");
        let text = check_bridge(&ShowReport::default(), "br0").expect_err("unknown").to_string();
        assert_eq!(text, "there is no bridge 'br0'; there is none");
    }

    #[test]
    fn names_in_matches() {
        let names = PortNames::new(&show());
        let table = [
            ("recirc_id(0),in_port(2),eth()", "recirc_id(0),in_port(eth1),eth()"),
            ("recirc_id(0),in_port(9),eth()", "recirc_id(0),in_port(9),eth()"),
            ("recirc_id(0),in_port(2", "recirc_id(0),in_port(2"),
            ("recirc_id(0)", "recirc_id(0)"),
        ];
        for (key, want) in table {
            assert_eq!(names.in_match(key), want);
        }
    }
}
