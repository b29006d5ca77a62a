//! What the file holds: a line with the version of the format, a header, one record for each resource, and the digest
//! of what is between the first line and itself.
//!
//! ```text
//! ambit last-good 1\n | header | record | record | … | SHA-256
//! ```
//!
//! Header and records are protocol buffers, each after its length. A record is a resource as
//! control sends it, so that it is read by the same code and held to the same rules. The digest
//! finds truncation and corruption; whoever may write the file can also write a right digest.

use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ambit_proto::envoy::service::discovery::v3::Resource as Record;
use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN, digest};
use prost::{DecodeError, Message};

use super::{Configuration, Kept, Owner};
use crate::ResourceType;
use crate::convert::{InvalidResource, Received};

/// The first line. Another number: another meaning of what follows.
const FORMAT: &[u8] = b"ambit last-good 1\n";

/// Whose configuration follows, and since when.
#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(string, tag = "1")]
    cluster_id: String,
    #[prost(string, tag = "2")]
    proxy: String,
    #[prost(string, tag = "3")]
    trust_domain: String,
    /// Seconds since 1970.
    #[prost(uint64, tag = "4")]
    written: u64,
}

/// Writes a configuration.
pub(super) fn write(
    configuration: &impl Configuration,
    owner: &Owner,
    written: SystemTime,
    to: &mut impl Write,
) -> io::Result<()> {
    to.write_all(FORMAT)?;
    let mut digest = Context::new(&SHA256);
    let mut put = |message: Vec<u8>| {
        digest.update(&message);
        to.write_all(&message)
    };
    put(header(owner, written).encode_length_delimited_to_vec())?;
    for resource in configuration.resources() {
        put(resource.to_proto().encode_length_delimited_to_vec())?;
    }
    to.write_all(digest.finish().as_ref())
}

fn header(owner: &Owner, written: SystemTime) -> Header {
    Header {
        cluster_id: owner.cluster_id.clone(),
        proxy: owner.proxy.clone(),
        trust_domain: owner.trust_domain.to_string(),
        written: written.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
    }
}

/// Reads a configuration: all of it, or nothing.
pub(super) fn read(octets: &[u8], owner: &Owner) -> Result<Kept, Refused> {
    let rest = octets.strip_prefix(FORMAT).ok_or(Refused::Format)?;
    let (mut content, sum) = rest.split_last_chunk::<SHA256_OUTPUT_LEN>().ok_or(Refused::Damaged)?;
    if digest(&SHA256, content).as_ref() != sum {
        return Err(Refused::Damaged);
    }
    let header = Header::decode_length_delimited(&mut content)?;
    refuse_foreign(&header, owner)?;
    let written = UNIX_EPOCH.checked_add(Duration::from_secs(header.written)).ok_or(Refused::Time)?;
    let mut changes = Vec::new();
    while !content.is_empty() {
        let record = Record::decode_length_delimited(&mut content)?;
        let received = receive(&record)
            .map_err(|error| Refused::Resource { name: record.name.clone(), why: error.with_causes() })?;
        changes.push(received.into_change());
    }
    Ok(Kept { changes, written })
}

fn refuse_foreign(header: &Header, owner: &Owner) -> Result<(), Refused> {
    let ours = [&owner.cluster_id, &owner.proxy, &owner.trust_domain.to_string()];
    let theirs = [&header.cluster_id, &header.proxy, &header.trust_domain];
    for (what, (ours, theirs)) in
        ["cluster", "proxy", "trust domain"].into_iter().zip(ours.into_iter().zip(theirs))
    {
        if ours != theirs {
            return Err(Refused::Foreign { what, theirs: theirs.clone(), ours: ours.clone() });
        }
    }
    Ok(())
}

fn receive(record: &Record) -> Result<Received, InvalidResource> {
    let type_url = &record.resource.as_ref().ok_or(InvalidResource::Missing)?.type_url;
    let kind = ResourceType::from_type_url(type_url)
        .ok_or_else(|| InvalidResource::TypeUrl { type_url: type_url.clone() })?;
    Received::decode(kind, record)
}

/// Why what a file holds is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Something else, or the work of a proxy that writes it differently.
    #[error("it was not written by this version of the program")]
    Format,
    /// Something was cut off or changed.
    #[error("its content does not match its digest: it is damaged or incomplete")]
    Damaged,
    /// It is another proxy's.
    #[error("it belongs to {what} {theirs:?}, not to {ours:?}")]
    Foreign {
        /// cluster, proxy or trust domain.
        what: &'static str,
        /// Whose it is.
        theirs: String,
        /// Who we are.
        ours: String,
    },
    /// No clock shows the time at which it says it was written.
    #[error("it says that it was written at an impossible time")]
    Time,
    /// It is whole, and still not what it should be.
    #[error("it cannot be decoded: {0}")]
    Decode(#[from] DecodeError),
    /// One of its resources is not usable. Without it the others are not, either: it might be the
    /// policy that denies.
    #[error("{name} in it is not usable: {why}")]
    Resource {
        /// Its name.
        name: String,
        /// Why, with all causes.
        why: String,
    },
}
