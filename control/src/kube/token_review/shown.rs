//! What a token says of itself, unverified. Pure.
//!
//! Good enough to refuse by and to know until when an answer may be kept; never to believe.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

/// Octets of the longest token that is looked at. One of the API server's has some 1,200.
const LONGEST: usize = 8 * 1024;

/// What a token says of itself.
#[derive(Debug, Deserialize)]
pub(super) struct Shown {
    /// `system:serviceaccount:<namespace>:<name>`.
    #[serde(rename = "sub")]
    pub(super) subject: String,
    /// Whom it is for. The API server writes a list; RFC 7519 §4.1.3 allows a single text.
    #[serde(rename = "aud", deserialize_with = "one_or_many")]
    pub(super) audiences: Vec<String>,
    /// Seconds since 1970.
    #[serde(rename = "exp")]
    pub(super) expires_seconds: i64,
}

/// A text that is no token of a ServiceAccount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not a JSON Web Token with sub, aud and exp")]
pub struct Unreadable;

impl Shown {
    /// Reads the claims of a JSON Web Token (RFC 7519).
    pub(super) fn by(token: &str) -> Result<Self, Unreadable> {
        let mut parts = token.split('.');
        let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Unreadable);
        };
        if token.len() > LONGEST {
            return Err(Unreadable);
        }
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| Unreadable)?;
        serde_json::from_slice(&claims).map_err(|_| Unreadable)
    }
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audiences {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Audiences::deserialize(deserializer)? {
        Audiences::One(audience) => vec![audience],
        Audiences::Many(audiences) => audiences,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> String {
        format!("e30.{}.c2lnbmF0dXJl", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn what_a_token_says_is_read_and_what_is_no_token_is_not() {
        let many = Shown::by(&token(r#"{"sub":"s","aud":["a","b"],"exp":7,"iat":1}"#)).unwrap();
        assert_eq!(
            (many.subject, many.audiences, many.expires_seconds),
            ("s".into(), vec!["a".into(), "b".into()], 7)
        );
        assert_eq!(Shown::by(&token(r#"{"sub":"s","aud":"a","exp":7}"#)).unwrap().audiences, ["a"]);
        let long = token(&format!(r#"{{"sub":"s","aud":"a","exp":7,"x":"{}"}}"#, "x".repeat(LONGEST)));
        let rows = [
            "",
            "opaque",
            "a.b",
            "e30.!.e30",
            &format!("{}.e30", token(r#"{"sub":"s","aud":"a","exp":7}"#)),
            &token("[]"),
            &token(r#"{"aud":"a","exp":7}"#),
            &token(r#"{"sub":"s","exp":7}"#),
            &token(r#"{"sub":"s","aud":"a"}"#),
            &token(r#"{"sub":"s","aud":7,"exp":7}"#),
            &long,
        ];
        for row in rows {
            assert_eq!(Shown::by(row).err(), Some(Unreadable), "{row}");
        }
    }
}
