//! `ambit explain request`: what becomes of a request, and by which objects.
//!
//! The configuration goes the way that control and its proxies send it, and every question is put to the
//! functions that they ask. What is here only asks them, hop by hop, and of every choice that is left to
//! chance.

pub mod answer;
mod conditions;
mod endpoint;
mod question;
mod text;
mod way;
mod waypoint;

use std::process::ExitCode;

use ambit_kube::Access;

use crate::args::{ExplainRequestArgs, Output};
use crate::configuration::{Model, ReadError};
use answer::{Answer, End};

pub use question::{InvalidQuestion, Question, Receiver, Sender, SenderKind, header};
pub use way::{NoAnswer, explain};

/// Why nothing is explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The configuration could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It cannot be said what is asked.
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
}

/// Exit status where a request may be served or not, by chance.
const DEPENDS: u8 = 3;

/// Prints an explanation. The exit status is 0 where the request is served, 1 where it is not, and 3 where
/// that is left to chance.
///
/// # Errors
/// When the configuration cannot be read, or it cannot be said what is asked.
pub async fn run(access: &Access, args: &ExplainRequestArgs) -> Result<ExitCode, ExplainError> {
    let inputs = args.source.read(access).await?;
    let model = Model::new(inputs, args.source.mesh.settings());
    let answer = explain(&model, &args.question())?;
    print(args.output.output, &answer);
    Ok(exit_code(&answer))
}

fn exit_code(answer: &Answer) -> ExitCode {
    let served = answer.ends.iter().filter(|end| end.is_served()).count();
    match served {
        0 => ExitCode::FAILURE,
        all if all == answer.ends.len() => ExitCode::SUCCESS,
        _ => ExitCode::from(DEPENDS),
    }
}

impl Answer {
    /// Whether this is what was observed: the status that a client read, or none where its connection was
    /// reset; and where the application answered, which backend did, if that is known. An application is
    /// taken to answer with a status below 300.
    pub fn agrees_with(&self, status: Option<u16>, backend: Option<&str>) -> bool {
        self.ends.iter().any(|end| match end {
            End::Reaches { workload, backend: of } => {
                let is_it =
                    |name: &str| workload == name || of == name || workload.ends_with(&format!("/{name}"));
                status.is_some_and(|status| status < 300) && backend.is_none_or(is_it)
            }
            End::Answered { .. } => end.status() == status,
            End::Reset { .. } => status.is_none(),
        })
    }
}

#[expect(clippy::print_stdout, reason = "the command's output")]
fn print(output: Output, answer: &Answer) {
    match output {
        Output::Json => {
            let json = serde_json::to_string_pretty(answer);
            println!("{}", json.expect("texts and numbers serialize"));
        }
        Output::Table => print!("{answer}"),
    }
}

#[cfg(test)]
pub(crate) mod tests;
