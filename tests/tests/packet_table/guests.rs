//! The same table on the older kernels that the switch supports: this very test program, run in guests.

use std::path::Path;
use std::time::Duration;

use switch_tests::guest::{self, Guest, Initramfs, Kernel, Series, find_program};

/// Runs these tests of this program in a guest with a kernel of `series`.
fn in_guest(series: Series, tests: &[&str]) {
    let missing = guest::missing();
    let missing = missing.or_else(|| find_program("ip").is_none().then(|| "ip is not installed".to_owned()));
    if let Some(why) = missing {
        eprintln!("skipped: {why}");
        return;
    }
    let kernel = Kernel::fetch(series).expect("kernel package");
    let mut initramfs = Initramfs::with_busybox().expect("initramfs");
    let this = std::env::current_exe().expect("this program");
    initramfs.program(&this, "tests/packet_table").expect("this program");
    for name in ["ip", "ethtool"] {
        if let Some(path) = find_program(name) {
            initramfs.program(Path::new(&path), &format!("tests/{name}")).expect(name);
        }
    }
    let script = format!(
        "export PATH=/tests:$PATH SLUICE_TABLE_RUNS=200\nip link set lo up\n\
         /tests/packet_table --nocapture --test-threads=1 --exact {} 2>&1",
        tests.join(" ")
    );
    let result =
        Guest::new(kernel, &["veth", "sch_ingress", "cls_bpf", "crc32c_generic"], initramfs, &script)
            .memory_mib(2048)
            .run(Duration::from_secs(500))
            .expect("guest");
    assert_eq!(result.status, Some(0), "{}", result.console);
    assert!(!result.console.contains("skipped:"), "{}", result.console);
    assert!(result.console.contains(&format!("{} passed", tests.len())), "{}", result.console);
}

const TESTS: [&str; 3] = ["the_table_with_xdp_output", "the_table_with_hand_over", "random_lists_agree"];

#[test]
fn linux_6_1_agrees() {
    in_guest(Series::V6_1, &TESTS);
}

#[test]
fn linux_6_12_agrees() {
    in_guest(Series::V6_12, &TESTS);
}
