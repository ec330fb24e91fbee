//! The kernels that Sluice supports boot in a guest, with what it needs of them.

use std::time::Duration;

use switch_tests::guest::{self, Guest, Initramfs, Kernel, Series};

#[test]
fn kernels_boot() {
    if let Some(why) = guest::missing() {
        eprintln!("skipped: {why}");
        return;
    }
    for series in [Series::V6_1, Series::V6_12] {
        let kernel = Kernel::fetch(series).expect("kernel package");
        assert!(kernel.version.starts_with(series.prefix()), "{}", kernel.version);
        let initramfs = Initramfs::with_busybox().expect("initramfs");
        let script =
            "uname -r; ls /sys/kernel/btf/vmlinux && ip link | head -1; mount -t bpf bpf /sys/fs/bpf";
        let result = Guest::new(kernel.clone(), &["veth"], initramfs, script)
            .run(Duration::from_secs(120))
            .expect("guest");
        assert_eq!(result.status, Some(0), "{}", result.console);
        assert!(result.console.contains(&kernel.version), "{}", result.console);
    }
}
