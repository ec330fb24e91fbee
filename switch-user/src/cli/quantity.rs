//! Numbers as people read them.

/// A count or a rate in at most four significant places with its decimal prefix: `950`, `12.3k`, `1.20M`.
pub fn short(value: f64) -> String {
    const PREFIXES: [&str; 6] = ["", "k", "M", "G", "T", "P"];
    let mut value = if value.is_finite() { value.max(0.0) } else { 0.0 };
    let mut prefix = 0;
    // 999.95 would be printed as 1000.0.
    while value >= 999.5 && prefix + 1 < PREFIXES.len() {
        value /= 1000.0;
        prefix += 1;
    }
    let digits = match value {
        _ if prefix == 0 => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$}{}", PREFIXES[prefix])
}

/// Bytes in binary units: `512 B`, `1.4 KiB`.
pub fn bytes(value: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if value < 1024 {
        return format!("{value} B");
    }
    let mut scaled = value as f64;
    let mut unit = 0;
    while scaled >= 1023.95 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{scaled:.1} {}", UNITS[unit])
}

/// A share of a whole in percent; a dash if there is no whole.
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    format!("{:.1}%", part as f64 * 100.0 / whole as f64)
}

/// Seconds as the two largest units: `42s`, `3m 05s`, `1h 02m`, `3d 04h`.
pub fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    if days > 0 {
        format!("{days}d {:02}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}h {:02}m", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes}m {:02}s", seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

/// VLANs as ranges: `1,10-12,20`.
pub fn vlans(vlans: &[u16]) -> String {
    let mut parts: Vec<(u16, u16)> = Vec::new();
    for vlan in vlans {
        match parts.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*vlan) => *last = *vlan,
            _ => parts.push((*vlan, *vlan)),
        }
    }
    let texts: Vec<_> = parts
        .iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
        .collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_numbers() {
        let table = [
            (0.0, "0"),
            (999.4, "999"),
            (999.6, "1.00k"),
            (1234.0, "1.23k"),
            (12_345.0, "12.3k"),
            (123_456.0, "123k"),
            (999_600.0, "1.00M"),
            (14_880_952.0, "14.9M"),
            (9.87e9, "9.87G"),
            (f64::NAN, "0"),
            (-1.0, "0"),
        ];
        for (value, want) in table {
            assert_eq!(short(value), want, "{value}");
        }
    }

    #[test]
    fn byte_counts() {
        let table =
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_500_000, "1.4 MiB"), (u64::MAX, "16.0 EiB")];
        for (value, want) in table {
            assert_eq!(bytes(value), want);
        }
    }

    #[test]
    fn shares_and_times() {
        assert_eq!(
            (percent(1, 0), percent(1, 3), percent(3, 3)),
            ("-".into(), "33.3%".into(), "100.0%".into())
        );
        let table = [(0, "0s"), (59, "59s"), (185, "3m 05s"), (3720, "1h 02m"), (273_600, "3d 04h")];
        for (value, want) in table {
            assert_eq!(duration(value), want);
        }
    }

    #[test]
    fn vlan_ranges() {
        assert_eq!(vlans(&[1, 10, 11, 12, 20, 21]), "1,10-12,20-21");
        assert_eq!(vlans(&[]), "");
        assert_eq!(vlans(&[4095]), "4095");
    }
}
