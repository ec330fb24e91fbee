//! `sluice completions`: what a shell needs to complete the command line.

use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;
use super::output::emit;

const EXAMPLES: &str = "\
Examples:
  sluice completions bash > /etc/bash_completion.d/sluice
  sluice completions zsh > /usr/local/share/zsh/site-functions/_sluice
  sluice completions fish > ~/.config/fish/completions/sluice.fish";

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    emit(&script(args.shell)?)?;
    Ok(())
}

fn script(shell: Shell) -> Result<String, std::string::FromUtf8Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sluice", &mut script);
    String::from_utf8(script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_know_commands_and_flags() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell).expect("text");
            for word in ["trace-packet", "daemon", "rundir", "upcall-rate"] {
                assert!(script.contains(word), "{shell} lacks {word}");
            }
        }
    }
}
