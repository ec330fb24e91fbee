//! What the machine must have, by purpose, and how to tell whether it has it.
//!
//! A need is looked for by what it provides (a program, a header), not by package name: that is quick, and
//! holds on every distribution. Package names are only used to install what is missing.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::process;

/// What the machine is to be made ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Purpose {
    /// Compile the eBPF programs and `sluice`.
    Build,
    /// The demo, and the switch on named interfaces.
    Run,
    /// All tests, those with virtual machines included.
    Test,
    /// The benchmark with its peers.
    Bench,
}

impl Purpose {
    /// The word that the command line uses.
    pub fn name(self) -> &'static str {
        match self {
            Purpose::Build => "build",
            Purpose::Run => "run",
            Purpose::Test => "test",
            Purpose::Bench => "bench",
        }
    }
}

/// How to tell that something is there.
#[derive(Clone, Copy, Debug)]
pub enum Probe {
    /// One of these programs can be run.
    Program(&'static [&'static str]),
    /// A C header, relative to the include folders.
    Header(&'static str),
    /// A clang of any usable version, under whatever name.
    Clang,
    /// LLVM's libraries and `llvm-config` of one version.
    Llvm(u32),
}

/// One thing that is needed.
#[derive(Clone, Debug)]
pub struct Need {
    pub what: &'static str,
    pub why: &'static str,
    pub purpose: Purpose,
    pub probe: Probe,
    /// Package names: Debian's (the first that its archive has), Fedora's, Arch's.
    pub debian: Vec<String>,
    pub fedora: &'static str,
    pub arch: &'static str,
}

impl Need {
    fn new(
        purpose: Purpose,
        what: &'static str,
        why: &'static str,
        probe: Probe,
        packages: [&'static str; 3],
    ) -> Need {
        let debian = packages[0].split('|').map(str::to_owned).collect();
        Need { what, why, purpose, probe, debian, fedora: packages[1], arch: packages[2] }
    }

    /// Whether the machine has it.
    pub fn met(&self) -> bool {
        match self.probe {
            Probe::Program(names) => names.iter().any(|n| process::find_program(n).is_some()),
            Probe::Header(header) => find_header(header).is_some(),
            Probe::Clang => find_clang().is_some(),
            Probe::Llvm(major) => find_llvm(major).is_some(),
        }
    }
}

/// Everything that the purposes need, whether it is there or not. `linker_llvm` is the LLVM version that
/// bpf-linker has to be built against, if it has to be built.
pub fn all(purposes: &[Purpose], linker_llvm: Option<u32>) -> Vec<Need> {
    let mut needs = fixed();
    if let Some(major) = linker_llvm {
        needs.extend(for_linker(major));
    }
    needs.retain(|n| purposes.contains(&n.purpose));
    needs
}

fn fixed() -> Vec<Need> {
    use Probe::{Clang, Header, Program};
    use Purpose::{Build, Run, Test};
    vec![
        Need::new(
            Build,
            "gcc",
            "compiles libbpf and links Rust programs",
            Program(&["cc"]),
            ["gcc", "gcc", "gcc"],
        ),
        Need::new(
            Build,
            "C library headers",
            "libbpf",
            Header("stdio.h"),
            ["libc6-dev", "glibc-devel", "glibc"],
        ),
        Need::new(Build, "make", "builds libbpf and libxdp", Program(&["make"]), ["make", "make", "make"]),
        Need::new(Build, "m4", "builds libxdp", Program(&["m4"]), ["m4", "m4", "m4"]),
        Need::new(
            Build,
            "pkg-config",
            "builds libxdp",
            Program(&["pkg-config"]),
            ["pkg-config", "pkgconf-pkg-config", "pkgconf"],
        ),
        Need::new(
            Build,
            "clang",
            "compiles libxdp's dispatcher",
            Clang,
            ["clang-22|clang-21|clang-19|clang-16|clang", "clang", "clang"],
        ),
        Need::new(
            Build,
            "libelf",
            "libbpf reads object files",
            Header("libelf.h"),
            ["libelf-dev", "elfutils-libelf-devel", "libelf"],
        ),
        Need::new(Build, "zlib", "libelf", Header("zlib.h"), ["zlib1g-dev", "zlib-devel", "zlib"]),
        Need::new(
            Run,
            "ip",
            "makes namespaces and virtual cables",
            Program(&["ip"]),
            ["iproute2", "iproute", "iproute2"],
        ),
        Need::new(Run, "ping", "real pings", Program(&["ping"]), ["iputils-ping", "iputils", "iputils"]),
        Need::new(Run, "ethtool", "reads and sets offloads", Program(&["ethtool"]), ["ethtool"; 3]),
        Need::new(
            Test,
            "QEMU",
            "guests with other kernels",
            Program(&["qemu-system-x86_64"]),
            ["qemu-system-x86", "qemu-system-x86-core", "qemu-system-x86"],
        ),
        Need::new(
            Test,
            "busybox",
            "the guests' programs",
            Program(&["busybox"]),
            ["busybox-static", "busybox", "busybox"],
        ),
        Need::new(Test, "cpio", "packs the guests' first file system", Program(&["cpio"]), ["cpio"; 3]),
        Need::new(Test, "nsenter", "enters network namespaces", Program(&["nsenter"]), ["util-linux"; 3]),
    ]
}

/// What bpf-linker is built from.
fn for_linker(major: u32) -> Vec<Need> {
    use Purpose::Build;
    let mut llvm = Need::new(
        Build,
        "LLVM libraries",
        "bpf-linker reads what the compiler writes",
        Probe::Llvm(major),
        ["", "llvm-devel", "llvm"],
    );
    llvm.debian = vec![format!("llvm-{major}-dev")];
    vec![
        llvm,
        Need::new(Build, "zstd", "LLVM", Probe::Header("zstd.h"), ["libzstd-dev", "libzstd-devel", "zstd"]),
        Need::new(
            Build,
            "libxml2",
            "LLVM",
            Probe::Header("libxml2/libxml/parser.h"),
            ["libxml2-dev", "libxml2-devel", "libxml2"],
        ),
        Need::new(
            Build,
            "g++",
            "LLVM's libraries are C++",
            Probe::Program(&["g++", "c++"]),
            ["g++", "gcc-c++", "gcc"],
        ),
    ]
}

fn find_header(header: &str) -> Option<PathBuf> {
    let machine = format!("/usr/include/{}-linux-gnu", std::env::consts::ARCH);
    ["/usr/include", machine.as_str(), "/usr/local/include"]
        .iter()
        .map(|f| Path::new(f).join(header))
        .find(|p| p.exists())
}

/// The newest clang: plain `clang`, a Debian `clang-N`, or one in LLVM's own folder.
pub fn find_clang() -> Option<PathBuf> {
    process::find_program("clang").or_else(|| {
        // Older ones do not know the BPF features that libxdp uses.
        (14..40).rev().find_map(|n| {
            process::find_program(&format!("clang-{n}")).or_else(|| {
                Some(PathBuf::from(format!("/usr/lib/llvm-{n}/bin/clang")))
                    .filter(|p| process::is_executable(p))
            })
        })
    })
}

/// The prefix of an LLVM with headers and libraries, of this major version.
pub fn find_llvm(major: u32) -> Option<PathBuf> {
    let debian = PathBuf::from(format!("/usr/lib/llvm-{major}"));
    if process::is_executable(&debian.join("bin/llvm-config")) && debian.join("include/llvm-c").exists() {
        return Some(debian);
    }
    for name in [format!("llvm-config-{major}"), "llvm-config".to_owned()] {
        let Some(program) = process::find_program(&name) else { continue };
        let version =
            process::output(std::process::Command::new(&program).arg("--version")).unwrap_or_default();
        if version.trim().split('.').next().and_then(|m| m.parse().ok()) != Some(major) {
            continue;
        }
        if let Ok(prefix) = process::output(std::process::Command::new(&program).arg("--prefix")) {
            return Some(PathBuf::from(prefix.trim()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_need_names_its_packages() {
        let every = [Purpose::Build, Purpose::Run, Purpose::Test, Purpose::Bench];
        for need in all(&every, Some(22)) {
            assert!(!need.debian.is_empty() && need.debian.iter().all(|p| !p.is_empty()), "{}", need.what);
            assert!(!need.fedora.is_empty() && !need.arch.is_empty(), "{}", need.what);
        }
    }

    #[test]
    fn building_needs_no_virtual_machines() {
        assert!(all(&[Purpose::Build], None).iter().all(|n| n.purpose == Purpose::Build));
        assert!(!all(&[Purpose::Build], None).iter().any(|n| n.what == "LLVM libraries"));
    }
}
