//! The eBPF object file, embedded at build time (see `build.rs`).

/// The crate was built before its eBPF programs were.
#[derive(Debug, thiserror::Error)]
#[error("this binary was built without the eBPF programs: run `cargo xtask build`")]
pub struct NotEmbedded;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sluice.bpf.o"));

/// The object's bytes.
pub fn bytes() -> Result<&'static [u8], NotEmbedded> {
    if OBJECT.is_empty() { Err(NotEmbedded) } else { Ok(OBJECT) }
}
