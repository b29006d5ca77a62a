//! One match: groups of conditions, joined by AND, each with values joined by OR.

use ambit_mesh::policy::{Action, Match, ServiceAccountMatch, StringMatch};
use ambit_proto::istio::security as proto;
use ambit_proto::istio::security::string_match::MatchType;
use ipnet::IpNet;
use prost::Message;

use super::InvalidAuthorization;
use super::rules::{Known, has_unknown_fields};
use crate::convert::{address, ports};

/// Reads one match.
pub(super) fn read(octets: &[u8], action: Action) -> Result<Known<Match>, InvalidAuthorization> {
    let from = proto::Match::decode(octets)?;
    let unenforceable =
        has_unknown_fields(&from, octets) || !from.extensions.is_empty() || has_unknown_text(&from);
    let condition = enforceable(&from)?;
    match action {
        // An ALLOW must not widen: without one of its conditions, it would.
        Action::Allow if unenforceable => Ok(Known::Never),
        Action::Deny if unenforceable => Ok(Known::remainder(condition)),
        // Without conditions the mesh skips it, and so the only match of a clause stays in it.
        Action::Allow | Action::Deny => Ok(Known::When(condition)),
    }
}

/// The conditions that can be enforced.
fn enforceable(from: &proto::Match) -> Result<Match, InvalidAuthorization> {
    Ok(Match {
        namespaces: any_of(&from.namespaces),
        not_namespaces: none_of(&from.not_namespaces),
        principals: principals(any_of(&from.principals)),
        not_principals: principals(none_of(&from.not_principals)),
        service_accounts: from.service_accounts.iter().map(service_account).collect(),
        not_service_accounts: from.not_service_accounts.iter().map(service_account).collect(),
        source_ips: ranges("source_ips", &from.source_ips)?,
        not_source_ips: ranges("not_source_ips", &from.not_source_ips)?,
        destination_ips: ranges("destination_ips", &from.destination_ips)?,
        not_destination_ips: ranges("not_destination_ips", &from.not_destination_ips)?,
        destination_ports: port_list("destination_ports", &from.destination_ports)?,
        not_destination_ports: port_list("not_destination_ports", &from.not_destination_ports)?,
    })
}

fn has_unknown_text(from: &proto::Match) -> bool {
    let groups = [&from.namespaces, &from.not_namespaces, &from.principals, &from.not_principals];
    groups.into_iter().flatten().any(|text| text.match_type.is_none())
}

/// Values of which one must match. With an unknown one among them the group may be met by
/// anything, so that nothing of it is left.
fn any_of(texts: &[proto::StringMatch]) -> Vec<StringMatch> {
    texts.iter().map(text).collect::<Option<_>>().unwrap_or_default()
}

/// Values of which none may match. An unknown one may match nothing; the others still count.
fn none_of(texts: &[proto::StringMatch]) -> Vec<StringMatch> {
    texts.iter().filter_map(text).collect()
}

fn text(from: &proto::StringMatch) -> Option<StringMatch> {
    match from.match_type.as_ref()? {
        MatchType::Exact(text) => Some(StringMatch::Exact(text.as_str().into())),
        MatchType::Prefix(text) => Some(StringMatch::Prefix(text.as_str().into())),
        MatchType::Suffix(text) => Some(StringMatch::Suffix(text.as_str().into())),
        MatchType::Presence(()) => Some(StringMatch::Presence),
    }
}

/// Istio compares principals without their scheme.
fn principals(texts: Vec<StringMatch>) -> Vec<StringMatch> {
    let bare = |text: &str| text.strip_prefix("spiffe://").unwrap_or(text).into();
    let principal = |text| match text {
        StringMatch::Exact(text) => StringMatch::Exact(bare(&text)),
        StringMatch::Prefix(text) => StringMatch::Prefix(bare(&text)),
        text @ (StringMatch::Suffix(_) | StringMatch::Presence) => text,
    };
    texts.into_iter().map(principal).collect()
}

fn service_account(from: &proto::ServiceAccountMatch) -> ServiceAccountMatch {
    ServiceAccountMatch {
        namespace: from.namespace.as_str().into(),
        service_account: from.service_account.as_str().into(),
    }
}

fn ranges(field: &'static str, from: &[proto::Address]) -> Result<Vec<IpNet>, InvalidAuthorization> {
    let malformed = |from: &proto::Address| InvalidAuthorization::Range {
        field,
        octets: from.address.len(),
        length: from.length,
    };
    from.iter().map(|from| range(from).ok_or_else(|| malformed(from))).collect()
}

/// A range of IPv4-mapped addresses is the IPv4 range, as peers' addresses are compared.
fn range(from: &proto::Address) -> Option<IpNet> {
    let length = u8::try_from(from.length).ok()?;
    let ip = address::ip(&from.address).ok()?;
    let mapped_bits = if ip.is_ipv4() && from.address.len() == 16 { 96 } else { 0 };
    Some(IpNet::new(ip, length.checked_sub(mapped_bits)?).ok()?.trunc())
}

fn port_list(field: &'static str, from: &[u32]) -> Result<Vec<u16>, InvalidAuthorization> {
    let port = |&number| ports::port(number).map_err(|source| InvalidAuthorization::Port { field, source });
    from.iter().map(port).collect()
}
