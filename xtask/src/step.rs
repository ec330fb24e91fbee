//! One step of a verb: a line that says what goes on, for how long, and how it ended.
//!
//! A step that takes more than two seconds shows that it lives: on a terminal its line is rewritten with the
//! time and the last thing that the command said; elsewhere a line comes every half minute.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::{self, Ended};
use crate::terminal::{Paint, Stream, columns};
use crate::workspace::Workspace;

const QUIET: Duration = Duration::from_secs(2);
const FRAME: Duration = Duration::from_millis(200);
const HEARTBEAT: Duration = Duration::from_secs(30);

/// A step under way. Dropped without [`Step::done`], it is shown as failed.
#[derive(Debug)]
pub struct Step {
    title: String,
    begun: Instant,
    drawn: Instant,
    live: bool,
    ended: bool,
    stream: Stream,
}

impl Step {
    /// Begins a step.
    pub fn begin(title: impl Into<String>) -> Step {
        let title = title.into();
        let stream = Stream::stderr();
        let now = Instant::now();
        Step { title, begun: now, drawn: now, live: false, ended: false, stream }
    }

    /// Tells what is going on now. May be called as often as wished: it draws a few times a second.
    pub fn note(&mut self, text: &str) {
        let now = Instant::now();
        let pace = if self.stream.is_terminal() { FRAME } else { HEARTBEAT };
        if now - self.begun < QUIET || self.live && now - self.drawn < pace {
            return;
        }
        self.drawn = now;
        self.live = true;
        let seconds = (now - self.begun).as_secs();
        if self.stream.is_terminal() {
            let line: String = format!("  … {}  {seconds} s  {}", self.title, text.trim())
                .chars()
                .take(columns() - 1)
                .collect();
            eprint!("\r\x1b[K{}", self.stream.paint(Paint::Dim, &line));
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("  {} ... {seconds} s  {}", self.title, text.trim());
        }
    }

    /// Ends the step well; `detail` may be empty.
    pub fn done(mut self, detail: &str) {
        self.end(Paint::Good, "✓", detail);
    }

    /// Ends the step with something that the user should know, though the verb goes on.
    pub fn warn(mut self, detail: &str) {
        self.end(Paint::Warn, "!", detail);
    }

    fn end(&mut self, paint: Paint, mark: &str, detail: &str) {
        self.ended = true;
        if self.live && self.stream.is_terminal() {
            eprint!("\r\x1b[K");
        }
        let took = self.begun.elapsed();
        let time = if took < QUIET { String::new() } else { format!("  {}", seconds(took)) };
        let detail = if detail.is_empty() { String::new() } else { format!("  {detail}") };
        let tail = self.stream.paint(Paint::Dim, &format!("{detail}{time}"));
        eprintln!("  {} {}{tail}", self.stream.paint(paint, mark), self.title);
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Paint::Bad, "✗", "");
        }
    }
}

/// A duration as people say it.
pub fn seconds(time: Duration) -> String {
    let s = time.as_secs_f64();
    if s < 60.0 {
        format!("{s:.1} s")
    } else {
        format!("{} min {:02} s", time.as_secs() / 60, time.as_secs() % 60)
    }
}

/// Runs a command as a step. What it prints goes to a log file; its end is shown if it fails.
pub fn command(workspace: &Workspace, title: &str, log_name: &str, command: &mut Command) -> Result<()> {
    let log_path = workspace.logs().join(format!("{log_name}.log"));
    fs::create_dir_all(workspace.logs()).with_context(|| format!("make {}", workspace.logs().display()))?;
    let log = File::create(&log_path).with_context(|| format!("write {}", log_path.display()))?;
    let shared = Arc::new(Mutex::new(Log { file: log, last: String::new() }));

    let mut step = Step::begin(title);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", command.get_program().to_string_lossy()))?;
    let readers = [
        child.stdout.take().map(|s| follow(s, shared.clone())),
        child.stderr.take().map(|s| follow(s, shared.clone())),
    ];
    let ended = process::wait(&mut child, None, || {
        let last = shared.lock().unwrap_or_else(PoisonError::into_inner).last.clone();
        step.note(&last);
    });
    for reader in readers.into_iter().flatten() {
        let _ = reader.join();
    }
    match ended? {
        Ended::Well => {
            step.done("");
            Ok(())
        }
        Ended::Badly(how) => {
            drop(step);
            eprintln!("{}", tail(&log_path));
            bail!("{title} failed ({how}); all that it said is in {}", log_path.display())
        }
    }
}

#[derive(Debug)]
struct Log {
    file: File,
    last: String,
}

fn follow(stream: impl Read + Send + 'static, log: Arc<Mutex<Log>>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = log.file.write_all(&line);
            let text = String::from_utf8_lossy(&line);
            if !text.trim().is_empty() {
                log.last = text.trim().to_owned();
            }
            line.clear();
        }
    })
}

fn tail(path: &std::path::Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].iter().map(|l| format!("    {l}\n")).collect()
}
