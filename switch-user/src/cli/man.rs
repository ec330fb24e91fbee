//! `sluice man`: one manual page that holds every command.

use std::io;

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::Cli;
use super::output::emit;

const TAIL: &str = r#".SH FILES
.TP
RUNDIR/control.sock
The daemon's control socket, for its owner alone: a line of JSON is a request, a line of JSON its answer.
.TP
RUNDIR/sluice.pid
The daemon's process id; locked while the daemon runs.
.SH "EXIT STATUS"
0 for success, 1 for a failure, 2 for a command line that makes no sense.
"#;

pub fn run() -> anyhow::Result<()> {
    emit(&page()?)?;
    Ok(())
}

/// The page in roff.
fn page() -> io::Result<String> {
    let mut root = Cli::command();
    root.build();
    let man = Man::new(root.clone()).manual("Sluice");
    // Which apostrophe clap_mangen's text is to use.
    let mut page = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n".to_owned();
    page.push_str(&section(|out| man.render_title(out))?);
    page.push_str(&section(|out| man.render_name_section(out))?);
    page.push_str(&section(|out| man.render_synopsis_section(out))?);
    page.push_str(&section(|out| man.render_description_section(out))?);
    page.push_str(&section(|out| man.render_options_section(out))?);
    page.push_str(&extra(&root, ".SH EXAMPLES")?);
    page.push_str(".SH COMMANDS\n");
    for command in root.get_subcommands().filter(|c| c.get_name() != "help") {
        page.push_str(&command_part(command)?);
    }
    page.push_str(TAIL);
    page.push_str(&section(|out| man.render_version_section(out))?);
    Ok(page)
}

/// A command's part: clap_mangen writes pages, so its sections become paragraphs of this one.
fn command_part(command: &Command) -> io::Result<String> {
    // What holds for all commands stands once, at the head of the page.
    let shown = command.clone().mut_args(|arg| {
        let everywhere = arg.is_global_set() || arg.get_id() == "help" || arg.get_id() == "version";
        arg.hide(everywhere)
    });
    let name = command.get_bin_name().unwrap_or(command.get_name()).replace('-', "\\-");
    let man = Man::new(shown);
    let mut part = format!(".SS \"{name}\"\n");
    part.push_str(&body(&section(|out| man.render_description_section(out))?, None));
    part.push_str(&body(&section(|out| man.render_synopsis_section(out))?, Some(".PP")));
    if command.get_arguments().any(|a| !a.is_global_set() && a.get_id() != "help") {
        part.push_str(&body(&section(|out| man.render_options_section(out))?, None));
    }
    part.push_str(&extra(command, ".PP")?);
    Ok(part)
}

/// What stands after a command's flags, its line ends kept.
fn extra(command: &Command, head: &str) -> io::Result<String> {
    let Some(text) = command.get_after_help() else { return Ok(String::new()) };
    let mut part = format!("{head}\n.nf\n");
    // The section's own head says it already.
    let text = text.to_string();
    let text = if head.starts_with(".SH") { text.trim_start_matches("Examples:\n") } else { &text };
    for line in text.lines() {
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        // Lines that start with these are requests to roff.
        let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
        part.push_str(guard);
        part.push_str(&line);
        part.push('\n');
    }
    part.push_str(".fi\n");
    Ok(part)
}

/// A section by clap_mangen, without the definition that it puts before each.
fn section(render: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> io::Result<String> {
    let mut out = Vec::new();
    render(&mut out)?;
    let text = String::from_utf8(out).map_err(io::Error::other)?;
    let lines = text.lines().filter(|l| !l.starts_with(".ie ") && !l.starts_with(".el "));
    Ok(lines.flat_map(|l| [l, "\n"]).collect())
}

/// A section without its head; other heads in it (groups of flags) become emphasised lines.
fn body(section: &str, first: Option<&str>) -> String {
    let mut out = String::new();
    for (i, line) in section.lines().enumerate() {
        match line.strip_prefix(".SH ") {
            Some(_) if i == 0 => out.extend(first.iter().flat_map(|f| [*f, "\n"])),
            Some(head) => out.extend([".PP\n.B ", head, "\n"]),
            None => out.extend([line, "\n"]),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_page_holds_every_command() {
        let page = page().expect("page");
        for word in [
            ".TH sluice 1",
            ".SS \"sluice daemon\"",
            ".SS \"sluice trace\\-packet\"",
            "\\-\\-upcall\\-rate",
            "EXIT STATUS",
        ] {
            assert!(page.contains(word), "the page lacks {word}:\n{page}");
        }
        assert_eq!(page.matches("\n.SH NAME").count(), 1);
        assert_eq!(page.matches("\n\\fB\\-\\-rundir\\fR").count(), 1, "flags of all commands stand once");
    }
}
