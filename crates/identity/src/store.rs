//! Keeps certificates and their keys across a restart of the process, so that a restart while the
//! control plane is away still serves.
//!
//! The directory must be root's alone and should be on a tmpfs: keys are not meant to reach a disk.
//! What is read back is checked like a CA's answer, and anything that fails the check is removed.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ambit_mesh::identity::SpiffeId;
use pem::{EncodeConfig, LineEnding, Pem};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use crate::certificate::{CertificateRefused, Part, WorkloadCertificate, certificates};

/// Stands in a file between the chain and the roots; PEM readers skip it.
const ROOTS_FOLLOW: &str = "# roots\n";
/// Of files that hold a certificate.
const SUFFIX: &str = ".pem";
/// Of files that are being written.
const UNFINISHED: &str = ".unfinished";
const OWNER_ONLY_DIRECTORY: u32 = 0o700;
const OWNER_ONLY_FILE: u32 = 0o600;
const GROUP_AND_OTHERS: u32 = 0o077;

/// A directory of certificates, one file for each identity.
#[derive(Debug)]
pub struct CertificateStore {
    directory: PathBuf,
}

impl CertificateStore {
    /// Opens `directory`, making it if it is absent.
    ///
    /// # Errors
    /// When it cannot be made, or when others than its owner have rights on it.
    pub fn open(directory: PathBuf) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Directory { directory: directory.clone(), source };
        DirBuilder::new().recursive(true).mode(OWNER_ONLY_DIRECTORY).create(&directory).map_err(failed)?;
        let mode = fs::metadata(&directory).map_err(failed)?.mode();
        if mode & GROUP_AND_OTHERS != 0 {
            return Err(StoreError::Rights { directory });
        }
        Ok(Self { directory })
    }

    /// Writes a certificate with its key; a reader sees the old file or the new one, whole.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, certificate: &WorkloadCertificate) -> Result<(), StoreError> {
        let path = self.path(certificate.id());
        self.replace(&path, &encode(certificate)).map_err(|source| StoreError::File { path, source })
    }

    /// Reads the certificate of `id`, if there is one. A file that is not valid `now` or not whole
    /// is removed and reported.
    ///
    /// # Errors
    /// When there is a file but no usable certificate in it.
    pub fn load(&self, id: &SpiffeId, now: SystemTime) -> Result<Option<WorkloadCertificate>, StoreError> {
        let path = self.path(id);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoreError::File { path, source }),
        };
        match decode(id, &text, now) {
            Ok(certificate) => Ok(Some(certificate)),
            Err(source) => {
                self.remove(id)?;
                Err(StoreError::Content { path, source: source.into() })
            }
        }
    }

    /// Removes the certificate and key of `id`, if there are any.
    ///
    /// # Errors
    /// When the file is there and cannot be removed.
    pub fn remove(&self, id: &SpiffeId) -> Result<(), StoreError> {
        remove_file(self.path(id))
    }

    /// Removes every file that does not belong to one of `ids`: what an earlier process left of
    /// workloads that are gone, and what it did not finish writing.
    ///
    /// # Errors
    /// When the directory cannot be read or a file cannot be removed.
    pub fn keep_only(&self, ids: &BTreeSet<SpiffeId>) -> Result<(), StoreError> {
        let failed = |source| StoreError::Directory { directory: self.directory.clone(), source };
        let kept: BTreeSet<PathBuf> = ids.iter().map(|id| self.path(id)).collect();
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if !kept.contains(&path) {
                remove_file(path)?;
            }
        }
        Ok(())
    }

    /// `+` cannot occur in an identity, so two of them never share a file.
    fn path(&self, id: &SpiffeId) -> PathBuf {
        let name = format!("{}+{}+{}{SUFFIX}", id.trust_domain(), id.namespace(), id.service_account());
        self.directory.join(name)
    }

    fn replace(&self, path: &Path, content: &str) -> io::Result<()> {
        let mut unfinished = path.as_os_str().to_owned();
        // For a moment two agents may write the same certificate: one that takes over from the other.
        unfinished.push(format!(".{:08x}{UNFINISHED}", rand::random::<u32>()));
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY_FILE).open(&unfinished)?;
        file.write_all(content.as_bytes())?;
        fs::rename(&unfinished, path)
    }
}

/// Why a certificate was not kept or not found again. Never holds what a file contains.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory cannot be used.
    #[error("cannot use {directory} for certificates", directory = directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others could read the keys.
    #[error("{directory} is open to others than its owner and would hold private keys: chmod it to 0700", directory = directory.display())]
    Rights {
        /// The directory.
        directory: PathBuf,
    },
    /// A file cannot be read, written or removed.
    #[error("cannot read, write or remove {path}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file does not hold a certificate that can be used now.
    #[error("the certificate kept in {path} is not used and was removed", path = path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<CertificateRefused>,
    },
}

fn remove_file(path: PathBuf) -> Result<(), StoreError> {
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(StoreError::File { path, source }),
        _ => Ok(()),
    }
}

fn encode(certificate: &WorkloadCertificate) -> String {
    let key = block("PRIVATE KEY", certificate.key().secret_der());
    let blocks = |certificates: &[_]| -> String {
        certificates
            .iter()
            .map(|der: &rustls::pki_types::CertificateDer<'_>| block("CERTIFICATE", der))
            .collect()
    };
    [&key, &blocks(certificate.chain()), ROOTS_FOLLOW, &blocks(certificate.roots())].concat()
}

fn block(label: &str, der: &[u8]) -> String {
    pem::encode_config(&Pem::new(label, der), EncodeConfig::new().set_line_ending(LineEnding::LF))
}

fn decode(id: &SpiffeId, text: &str, now: SystemTime) -> Result<WorkloadCertificate, CertificateRefused> {
    let (key_and_chain, roots) =
        text.split_once(ROOTS_FOLLOW).ok_or(CertificateRefused::Missing { part: Part::Roots })?;
    let key = PrivateKeyDer::from_pem_slice(key_and_chain.as_bytes())
        .map_err(|source| CertificateRefused::NotPem { part: Part::Key, source })?;
    let chain = certificates(Part::Chain, key_and_chain)?;
    WorkloadCertificate::assemble(id, key, chain, certificates(Part::Roots, roots)?, now)
}

#[cfg(test)]
mod tests;
