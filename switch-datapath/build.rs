//! Embeds the eBPF object: from `SLUICE_BPF_OBJECT`, else from where `cargo xtask build` puts it. Without one the
//! crate still compiles; loading then says what to do.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-env-changed=SLUICE_BPF_OBJECT");
    let path = match env::var_os("SLUICE_BPF_OBJECT") {
        Some(path) => PathBuf::from(path),
        None => {
            let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
            root.join("../target/bpf/sluice.bpf.o")
        }
    };
    println!("cargo::rerun-if-changed={}", path.display());
    let object = fs::read(&path).unwrap_or_default();
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("sluice.bpf.o");
    if let Err(error) = fs::write(&out, object) {
        println!("cargo::error=cannot write {}: {error}", out.display());
    }
}
