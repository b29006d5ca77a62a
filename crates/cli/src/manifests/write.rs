//! `ambit manifests`: the manifests as files.

use std::path::{Path, PathBuf};

use super::output::Files;
use super::{DEFAULT_VALUES, Source, chart, kustomization, sources};
use crate::args::ManifestForm;
use crate::install::{InstallError, values};

/// Why files could not be written.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant is its message")]
pub enum WriteError {
    #[error(transparent)]
    Settings(#[from] InstallError),
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
}

/// Writes the manifests in one form.
///
/// # Errors
/// When the settings cannot be used, or a file not be written.
#[expect(clippy::print_stdout, reason = "what was asked for")]
pub fn write(form: &ManifestForm) -> Result<(), WriteError> {
    match form {
        ManifestForm::Values => print!("{DEFAULT_VALUES}"),
        ManifestForm::Yaml(settings) => {
            let values = values(settings)?;
            for source in
                sources().map_err(InstallError::from)?.iter().filter(|one: &&Source| one.applies(&values))
            {
                println!("---\n{}", source.render(&values).map_err(InstallError::from)?.trim_end());
            }
        }
        ManifestForm::Kustomize { settings, output } => {
            let values = values(settings)?;
            let sources = sources().map_err(InstallError::from)?;
            write_files(output, &kustomization(&sources, &values).map_err(InstallError::from)?)?;
        }
        ManifestForm::Chart { output } => {
            write_files(output, &chart(&sources().map_err(InstallError::from)?))?;
        }
    }
    Ok(())
}

fn write_files(directory: &Path, files: &Files) -> Result<(), WriteError> {
    for (name, text) in files {
        let path = directory.join(name);
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        made.and_then(|()| std::fs::write(&path, text))
            .map_err(|source| WriteError::Write { path, source })?;
    }
    Ok(())
}
