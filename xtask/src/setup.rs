//! `cargo xtask setup`: finds what the machine lacks, and installs it.
//!
//! On Debian and its relatives as root, packages are installed with apt-get. Elsewhere, and with
//! `--no-install`, the commands are printed and nothing is changed. What no package provides (bpf-linker, the
//! name `clang`) is put under the target folder. Every other verb begins with this one; it takes a fraction of
//! a second when nothing is missing.

pub mod apt;
mod bpffs;
mod compiler;
mod linker;
mod needs;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

pub use compiler::{Compiler, CoreSource};
pub use needs::Purpose;

use crate::process;
use crate::step::{self, Step};
use crate::terminal::{Paint, Stream, Table};
use crate::workspace::Workspace;
use needs::Need;

/// `cargo xtask setup`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Only print what is missing and the commands that would install it
    #[arg(long)]
    pub no_install: bool,
    /// What the machine is to be made ready for
    #[arg(long = "for", value_enum, value_name = "PURPOSE", value_delimiter = ',',
          default_values_t = [Purpose::Build, Purpose::Run, Purpose::Test])]
    pub purposes: Vec<Purpose>,
}

/// What the builds are done with.
#[derive(Clone, Debug)]
pub struct Toolchain {
    pub compiler: Compiler,
    pub bpf_linker: PathBuf,
    /// A folder in which `clang` has this name, if it has not on the `PATH`.
    pub clang_folder: Option<PathBuf>,
}

/// The machine is not ready, and why has been printed.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the machine is not ready: what to do is printed above")]
pub struct NotReady;

/// Runs the verb.
pub fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let toolchain = ensure(workspace, &args.purposes, args.no_install)?;
    if args.purposes.contains(&Purpose::Bench) && !args.no_install {
        crate::bench::fetch_peers(workspace)?;
    }
    let names: Vec<&str> = args.purposes.iter().map(|p| p.name()).collect();
    let step = Step::begin(format!("ready to {}", names.join(", ")));
    step.done(&format!(
        "eBPF programs by rustc {} (LLVM {}, core {}), {}",
        toolchain.compiler.release,
        toolchain.compiler.llvm,
        match toolchain.compiler.core {
            CoreSource::Compiled => "as packaged",
            CoreSource::RustSrc => "from rust-src",
        },
        toolchain.bpf_linker.display()
    ));
    Ok(())
}

/// Makes the machine ready for the purposes, or says what is missing.
pub fn ensure(workspace: &Workspace, purposes: &[Purpose], no_install: bool) -> Result<Toolchain> {
    // Building comes before everything else.
    let mut purposes = purposes.to_vec();
    purposes.push(Purpose::Build);

    let mut plan = Plan::make(workspace, &purposes);
    if !plan.is_empty() {
        plan.print_missing();
        if no_install || plan.by_hand() {
            plan.print_commands(workspace, no_install)?;
            return Err(NotReady.into());
        }
    }
    // Twice, as a compiler that has just been installed may want another LLVM for its linker than was expected.
    for _ in 0..2 {
        if plan.needs_packages() {
            plan.install_packages(workspace)?;
            plan = Plan::make(workspace, &purposes);
        }
    }
    if plan.needs_packages() {
        plan.print_missing();
        bail!("still missing after the installation");
    }
    let compiler = plan.compiler.context("no compiler for the eBPF programs")?;
    let bpf_linker = match plan.linker {
        Ok(program) => program,
        Err(llvm) => linker::build(workspace, llvm)?,
    };
    let clang_folder = clang_folder(workspace)?;
    if nix::unistd::geteuid().is_root() && purposes.iter().any(|p| *p != Purpose::Build) && !no_install {
        bpffs::mount();
    }
    Ok(Toolchain { compiler, bpf_linker, clang_folder })
}

/// Whether packages can be installed here at all.
pub fn can_install() -> bool {
    apt::present()
}

/// What is missing for the purposes, with the reason why it is needed.
pub fn missing(purposes: &[Purpose]) -> Vec<(&'static str, &'static str)> {
    needs::all(purposes, None).iter().filter(|n| !n.met()).map(|n| (n.what, n.why)).collect()
}

/// Cargo as the user started it.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // These describe the build of xtask itself. Even an empty CARGO_ENCODED_RUSTFLAGS wins over RUSTFLAGS.
    for name in [
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_MANIFEST_DIR",
        "CARGO_MANIFEST_PATH",
        "CARGO_PKG_NAME",
        "CARGO_PKG_VERSION",
        "LD_LIBRARY_PATH",
    ] {
        command.env_remove(name);
    }
    command
}

/// What is missing.
#[derive(Debug)]
struct Plan {
    needs: Vec<Need>,
    compiler: Option<Compiler>,
    /// The linker, or the LLVM to build it with.
    linker: Result<PathBuf, u32>,
}

impl Plan {
    fn make(workspace: &Workspace, purposes: &[Purpose]) -> Plan {
        let compiler = Compiler::find();
        let llvm = compiler.as_ref().map_or(compiler::EXPECTED_LLVM, |c| c.llvm);
        let linker = linker::find(workspace, llvm).ok_or_else(|| linker::choose_llvm(llvm));
        let needs =
            needs::all(purposes, linker.as_ref().err().copied()).into_iter().filter(|n| !n.met()).collect();
        Plan { needs, compiler, linker }
    }

    fn is_empty(&self) -> bool {
        !self.needs_packages() && self.linker.is_ok()
    }

    fn needs_packages(&self) -> bool {
        !self.needs.is_empty() || self.compiler.is_none()
    }

    /// Whether somebody else has to install what is missing: packages want root and apt-get, a toolchain rustup.
    fn by_hand(&self) -> bool {
        let packages = nix::unistd::geteuid().is_root() && apt::present();
        let rustup = !apt::present() && process::find_program("rustup").is_some();
        !packages && (!self.needs.is_empty() || self.compiler.is_none() && !rustup)
    }

    fn print_missing(&self) {
        let stream = Stream::stderr();
        let mut table = Table::new(["missing", "needed to", "because"]);
        for need in &self.needs {
            let cell = |text: &str| (text.to_owned(), None);
            table.row([(need.what.to_owned(), Some(Paint::Warn)), cell(need.purpose.name()), cell(need.why)]);
        }
        let mut own = |what: &str, why: &str| {
            table.row([
                (what.to_owned(), Some(Paint::Warn)),
                ("build".to_owned(), None),
                (why.to_owned(), None),
            ]);
        };
        if self.compiler.is_none() {
            own("Rust for eBPF", "a compiler with `core` for bpfel-unknown-none");
        }
        if self.linker.is_err() {
            own("bpf-linker", "links the eBPF programs; built under the target folder");
        }
        eprint!("{}", table.render(stream));
    }

    /// The packages of Debian's archive that provide what is missing.
    fn debian_packages(&self, available: Option<&BTreeSet<String>>) -> Result<Vec<String>> {
        let mut packages = Vec::new();
        for need in &self.needs {
            // Without lists, the first name is the best guess.
            let has = |name: &&String| available.is_none_or(|a| a.contains(*name));
            match need.debian.iter().find(has) {
                Some(name) => packages.push(name.clone()),
                None => bail!(
                    "{} is missing, and the package archive has none of {}",
                    need.what,
                    need.debian.join(", ")
                ),
            }
        }
        if self.compiler.is_none() && debian_has_compiler(available) {
            packages.extend(compiler::DEBIAN_PACKAGES.map(str::to_owned));
        }
        Ok(packages)
    }

    fn names(&self) -> Vec<&str> {
        self.needs
            .iter()
            .flat_map(|n| &n.debian)
            .map(String::as_str)
            .chain(compiler::DEBIAN_PACKAGES)
            .collect()
    }

    fn print_commands(&self, workspace: &Workspace, asked: bool) -> Result<()> {
        let root = nix::unistd::geteuid().is_root();
        let sudo = if root { "" } else { "sudo " };
        if !asked && !root {
            eprintln!("\n  Installing packages needs root, and this is not root. Type:\n");
        } else if !asked {
            eprintln!("\n  This is not a Debian system: its packages have to be installed by hand.\n");
        } else {
            eprintln!("\n  Nothing was installed. These commands would do it:\n");
        }
        let mut compiler_by_rustup = self.compiler.is_none();
        if apt::present() {
            let available = (!apt::lists_are_old()).then(|| apt::available(self.names())).transpose()?;
            let packages = self.debian_packages(available.as_ref())?;
            if !packages.is_empty() {
                println!("{sudo}apt-get update");
                println!("{sudo}apt-get install -y --no-install-recommends {}", packages.join(" "));
            }
            compiler_by_rustup &= !debian_has_compiler(available.as_ref());
        } else if !self.needs.is_empty() {
            let join = |name: fn(&Need) -> &'static str| {
                self.needs.iter().map(name).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" ")
            };
            println!("{sudo}dnf install {}      # Fedora", join(|n| n.fedora));
            println!("{sudo}pacman -S --needed {}      # Arch", join(|n| n.arch));
        }
        if compiler_by_rustup {
            println!("{}", rustup_commands());
        }
        if let Err(llvm) = self.linker {
            println!("{}", linker::build_text(workspace, llvm)?);
        }
        Ok(())
    }

    fn install_packages(&self, workspace: &Workspace) -> Result<()> {
        if !self.needs_packages() {
            return Ok(());
        }
        if !apt::present() {
            return install_by_rustup(workspace);
        }
        let mut available = BTreeSet::new();
        if !apt::lists_are_old() {
            available = apt::available(self.names())?;
        }
        if self.debian_packages(Some(&available)).is_err() || self.compiler.is_none() && !has_all(&available)
        {
            apt::update(workspace)?;
            available = apt::available(self.names())?;
        }
        let packages = self.debian_packages(Some(&available))?;
        if !packages.is_empty() {
            apt::install(workspace, &packages)?;
        }
        if self.compiler.is_none() && !has_all(&available) {
            install_by_rustup(workspace)?;
        }
        Ok(())
    }
}

fn has_all(available: &BTreeSet<String>) -> bool {
    compiler::DEBIAN_PACKAGES.iter().all(|p| available.contains(*p))
}

fn debian_has_compiler(available: Option<&BTreeSet<String>>) -> bool {
    available.is_none_or(has_all)
}

fn rustup_commands() -> String {
    format!("rustup toolchain install {} --profile minimal --component rust-src", compiler::NIGHTLY)
}

fn install_by_rustup(workspace: &Workspace) -> Result<()> {
    if process::find_program("rustup").is_none() {
        bail!(
            "no compiler for the eBPF programs: the package archive has no {}, and there is no rustup",
            compiler::DEBIAN_PACKAGES.join(" with ")
        );
    }
    let mut command = Command::new("rustup");
    command.args(rustup_commands().split(' ').skip(1));
    step::command(
        workspace,
        &format!("installing the Rust toolchain {}", compiler::NIGHTLY),
        "rustup",
        &mut command,
    )
}

/// The build of libxdp wants `clang` by this name, and Debian's versioned packages do not give it.
fn clang_folder(workspace: &Workspace) -> Result<Option<PathBuf>> {
    if process::find_program("clang").is_some() {
        return Ok(None);
    }
    let clang = needs::find_clang().context("no clang")?;
    let folder = workspace.tools().join("clang");
    let link = folder.join("clang");
    if std::fs::read_link(&link).ok().as_ref() != Some(&clang) {
        std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(&clang, &link).with_context(|| format!("make {}", link.display()))?;
    }
    Ok(Some(folder))
}
