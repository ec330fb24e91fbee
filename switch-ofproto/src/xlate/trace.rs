//! The steps of a translation, for people: which rules a packet hit, what each action did and why.
//!
//! The steps are a tree that programs can read; printed, it has the form of `ovs-appctl ofproto/trace`.

use std::fmt;

use serde::Serialize;

/// What a step is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// The packet enters a bridge.
    Bridge,
    /// A table is looked up; the text is its number and the rule that was found.
    Table,
    /// An action of the rule.
    Action,
    /// What the action found or decided.
    Detail,
    /// Something that its author may not have meant.
    Warning,
    /// The translation failed.
    Error,
}

/// One step, and what came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Step {
    pub kind: StepKind,
    pub text: String,
    /// Of a bridge or table: that another step leads to it and goes on behind it.
    #[serde(skip)]
    pub nested: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
}

/// All steps of a translation.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Trace {
    pub steps: Vec<Step>,
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(f, &self.steps, 0)
    }
}

fn print(f: &mut fmt::Formatter<'_>, steps: &[Step], level: usize) -> fmt::Result {
    for step in steps {
        let leads_on = matches!(step.kind, StepKind::Bridge | StepKind::Table);
        let deeper = usize::from(step.nested || !leads_on);
        let indent = 4 * (level + deeper);
        let text = &step.text;
        match step.kind {
            StepKind::Bridge => {
                let line = "-".repeat(text.len());
                write!(f, "\n{:indent$}{text}\n{:indent$}{line}\n", "", "")?;
            }
            StepKind::Table | StepKind::Action => writeln!(f, "{:indent$}{text}", "")?,
            StepKind::Detail => writeln!(f, "{:indent$} -> {text}", "")?,
            StepKind::Warning => writeln!(f, "{:indent$} >> {text}", "")?,
            StepKind::Error => writeln!(f, "{:indent$} >>>> {text} <<<<", "")?,
        }
        print(f, &step.steps, level + if leads_on { 2 * deeper } else { 0 })?;
    }
    Ok(())
}

/// Collects steps while a translation runs; does nothing unless it was asked to.
#[derive(Debug, Default)]
pub(super) struct Tracer {
    /// The steps of each level that is open, outermost first; empty if nobody wants a trace.
    open: Vec<Vec<Step>>,
}

impl Tracer {
    pub fn new(wanted: bool) -> Tracer {
        Tracer { open: if wanted { vec![Vec::new()] } else { Vec::new() } }
    }

    pub fn is_on(&self) -> bool {
        !self.open.is_empty()
    }

    /// Adds a step. `text` is only asked for if somebody wants the trace.
    pub fn add(&mut self, kind: StepKind, nested: bool, text: impl FnOnce() -> String) {
        if let Some(level) = self.open.last_mut() {
            level.push(Step { kind, text: text(), nested, steps: Vec::new() });
        }
    }

    /// What follows, until [`Tracer::leave`], came of the last step.
    pub fn enter(&mut self) {
        if self.is_on() {
            self.open.push(Vec::new());
        }
    }

    pub fn leave(&mut self) {
        if self.open.len() > 1
            && let Some(steps) = self.open.pop()
            && let Some(last) = self.open.last_mut().and_then(|level| level.last_mut())
        {
            last.steps = steps;
        }
    }

    pub fn finish(mut self) -> Option<Trace> {
        while self.open.len() > 1 {
            self.leave();
        }
        self.open.pop().map(|steps| Trace { steps })
    }
}
