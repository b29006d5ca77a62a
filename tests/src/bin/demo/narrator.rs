//! Tells the user what happens, in plain words.

use std::io::{Stdout, Write};

use anyhow::Result;

/// Prints numbered steps and what was found in each.
#[derive(Debug)]
pub(crate) struct Narrator {
    output: Stdout,
    steps: usize,
}

impl Narrator {
    pub(crate) fn new(output: Stdout) -> Self {
        Self { output, steps: 0 }
    }

    /// Begins a step.
    pub(crate) fn step(&mut self, what: &str) -> Result<()> {
        self.steps += 1;
        writeln!(self.output, "\n{}. {what}", self.steps)?;
        Ok(())
    }

    /// Shows a command or a file that the step is about.
    pub(crate) fn show(&mut self, text: &str) -> Result<()> {
        for line in text.lines() {
            writeln!(self.output, "     | {line}")?;
        }
        Ok(())
    }

    /// States what was checked and held.
    pub(crate) fn held(&mut self, what: &str) -> Result<()> {
        writeln!(self.output, "   ok  {what}")?;
        Ok(())
    }

    /// Says something outside of the steps.
    pub(crate) fn say(&mut self, what: &str) -> Result<()> {
        writeln!(self.output, "\n{what}")?;
        Ok(())
    }
}
