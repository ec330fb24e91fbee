//! What passed, failed and was skipped, read from what the test programs print.
//!
//! A test that lacks something prints `skipped: ` and the reason, and returns. For the test program it has
//! passed; here it counts as skipped.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use crate::terminal::{Paint, Stream};

/// The results of all checks and tests.
#[derive(Debug, Default)]
pub struct Summary {
    passed: usize,
    failed: Vec<String>,
    /// Reason and the tests that had it.
    skipped: BTreeMap<String, Vec<String>>,
}

impl Summary {
    /// Counts a check.
    pub fn add(&mut self, name: &str, result: Result<()>) {
        match result {
            Ok(()) => self.passed += 1,
            Err(error) => self.failed.push(format!("{name}: {error:#}")),
        }
    }

    /// Counts a check that could not be made.
    pub fn skip(&mut self, name: &str, why: &str) {
        self.skipped.entry(why.to_owned()).or_default().push(name.to_owned());
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: Summary) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        for (why, names) in other.skipped {
            self.skipped.entry(why).or_default().extend(names);
        }
    }

    /// Whether nothing failed.
    pub fn well(&self) -> bool {
        self.failed.is_empty()
    }

    /// Skips with reasons, failures, and a last line with the three numbers.
    pub fn text(&self, stream: Stream) -> String {
        let mut text = String::new();
        for (why, names) in &self.skipped {
            text +=
                &format!("  {} {} because: {why}\n", stream.paint(Paint::Warn, "skipped"), names.join(", "));
        }
        for name in &self.failed {
            text += &format!("  {} {name}\n", stream.paint(Paint::Bad, "failed"));
        }
        let skipped: usize = self.skipped.values().map(Vec::len).sum();
        text + &format!("{} passed, {} failed, {skipped} skipped\n", self.passed, self.failed.len())
    }
}

/// Follows the output of `cargo test -- --show-output`.
#[derive(Debug, Default)]
pub struct Parser {
    program: String,
    section: Section,
    /// Test whose output is being read.
    shown: String,
    ok: BTreeSet<String>,
    summary: Summary,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Section {
    #[default]
    Results,
    Successes,
    Failures,
}

impl Parser {
    /// Reads a line. Returns whether it is worth showing: the output of tests that passed is not.
    pub fn line(&mut self, line: &str) -> bool {
        if let Some(program) = program(line) {
            self.begin(program);
            return true;
        }
        match line {
            "successes:" => self.section = Section::Successes,
            "failures:" => self.section = Section::Failures,
            _ if line.starts_with("test result: ") => self.end(),
            _ => self.within(line),
        }
        self.section != Section::Successes && line != "successes:"
    }

    fn within(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("---- ").and_then(|l| l.strip_suffix(" stdout ----")) {
            self.shown = name.to_owned();
        } else if self.section == Section::Successes {
            if let Some(why) = line.strip_prefix("skipped: ")
                && self.ok.remove(&self.shown)
            {
                self.summary.skip(&self.shown, why.trim());
            }
        } else if let Some((name, result)) = line.strip_prefix("test ").and_then(|l| l.rsplit_once(" ... ")) {
            if self.section != Section::Results {
                return;
            }
            match result.split(',').next().unwrap_or_default().trim() {
                "ok" => _ = self.ok.insert(name.to_owned()),
                "FAILED" => self.summary.failed.push(format!("{}: {name}", self.program)),
                "ignored" => {
                    let why = result.split_once(',').map_or("marked as ignored", |(_, why)| why.trim());
                    self.summary.skip(name, why);
                }
                _ => {}
            }
        } else if line.starts_with("error: could not compile") {
            self.summary.failed.push(line.to_owned());
        }
    }

    fn begin(&mut self, program: String) {
        self.end();
        self.program = program;
    }

    fn end(&mut self) {
        self.summary.passed += self.ok.len();
        self.ok.clear();
        self.section = Section::Results;
    }

    /// The results.
    pub fn finish(mut self) -> Summary {
        self.end();
        self.summary
    }
}

/// The test program that a line of cargo's announces.
fn program(line: &str) -> Option<String> {
    let line = line.trim_start();
    if let Some(name) = line.strip_prefix("Doc-tests ") {
        return Some(format!("documentation of {name}"));
    }
    // `Running unittests src/lib.rs (target/release/deps/switch_common-0123456789abcdef)`
    let (_, path) = line.strip_prefix("Running ")?.rsplit_once('(')?;
    let file = path.trim_end_matches(')').rsplit('/').next()?;
    Some(file.rsplit_once('-').map_or(file, |(name, _)| name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
     Running unittests src/lib.rs (target/release/deps/switch_common-0123456789abcdef)

running 5 tests
test a ... ok
test b ... ok
test c::d ... FAILED
test e ... ignored, takes an hour
test f - should panic ... ok

successes:

---- b stdout ----
skipped: network namespaces need root

---- f - should panic stdout ----
test x ... FAILED

successes:
    a
    b

failures:

---- c::d stdout ----
thread panicked
skipped: not a skip, as it failed

failures:
    c::d

test result: FAILED. 3 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

   Doc-tests switch_common

running 1 test
test switch-common/src/lib.rs - (line 3) ... ok

test result: ok. 1 passed; 0 failed
";

    fn read() -> (Summary, String) {
        let mut parser = Parser::default();
        let shown: Vec<&str> = OUTPUT.lines().filter(|l| parser.line(l)).collect();
        (parser.finish(), shown.join("\n"))
    }

    #[test]
    fn results_are_counted() {
        let (summary, _) = read();
        assert_eq!(summary.passed, 3);
        assert_eq!(summary.failed, ["switch_common: c::d"]);
        assert_eq!(summary.skipped["network namespaces need root"], ["b"]);
        assert_eq!(summary.skipped["takes an hour"], ["e"]);
        assert!(summary.text(Stream::plain()).ends_with("\n3 passed, 1 failed, 2 skipped\n"));
    }

    #[test]
    fn failures_are_shown_and_successes_are_not() {
        let (_, shown) = read();
        assert!(shown.contains("thread panicked") && shown.contains("test a ... ok"));
        assert!(!shown.contains("need root"));
    }
}
