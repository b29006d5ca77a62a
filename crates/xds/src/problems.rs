//! What a proxy tells the server of itself that a person should know. Pure.
//!
//! xDS has no message for that: it is a request of a type that nobody serves, with a list in its `Node.metadata`. A
//! server that does not know the type leaves it unanswered, as any other that it does not know.

use std::sync::Arc;

use ambit_proto::envoy::config::core::v3::Node;
use ambit_proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

/// The type that is asked for.
const TYPE_URL: &str = "type.googleapis.com/ambit.node.v1.Problems";

/// In `Node.metadata`: a list of sentences.
const KEY: &str = "ambit.dev/problems";

/// So many of one proxy are taken in, and so many octets of each.
const MOST: usize = 8;
const LONGEST: usize = 512;

/// The request by which a client tells them: all that there are now.
pub(crate) fn request(node: &Node, problems: &[String]) -> DeltaDiscoveryRequest {
    let sentence = |text: &String| Value { kind: Some(Kind::StringValue(text.clone())) };
    let list = Kind::ListValue(ListValue { values: problems.iter().map(sentence).collect() });
    let fields = [(KEY.to_owned(), Value { kind: Some(list) })].into_iter().collect();
    DeltaDiscoveryRequest {
        node: Some(Node { metadata: Some(Struct { fields }), ..node.clone() }),
        type_url: TYPE_URL.to_owned(),
        ..DeltaDiscoveryRequest::default()
    }
}

/// What a client tells; `None` where the request is of another type.
pub(crate) fn told(request: &DeltaDiscoveryRequest) -> Option<Vec<Arc<str>>> {
    if request.type_url != TYPE_URL {
        return None;
    }
    let metadata = request.node.as_ref().and_then(|node| node.metadata.as_ref());
    let list = metadata.and_then(|metadata| metadata.fields.get(KEY)?.kind.as_ref());
    let Some(Kind::ListValue(list)) = list else { return Some(Vec::new()) };
    let sentence = |value: &Value| match &value.kind {
        // It is shown on terminals.
        Some(Kind::StringValue(text)) => {
            Some(text[..text.floor_char_boundary(LONGEST)].replace(char::is_control, " ").into())
        }
        _ => None,
    };
    Some(list.values.iter().filter_map(sentence).take(MOST).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_heard_within_limits() {
        let node = Node { id: "a".to_owned(), ..Node::default() };
        let said = ["one".to_owned(), "\u{e9}".repeat(LONGEST)];
        let heard = told(&request(&node, &said)).unwrap();
        assert_eq!((&*heard[0], heard[1].len()), ("one", LONGEST));
        assert_eq!(told(&request(&node, &vec!["x".to_owned(); 100])).unwrap().len(), MOST);
        assert_eq!(told(&request(&node, &["a\n\u{1b}[1mb".to_owned()])), Some(vec!["a  [1mb".into()]));
        assert_eq!(told(&request(&node, &[])), Some(Vec::new()), "it is over");
        assert_eq!(told(&DeltaDiscoveryRequest { node: Some(node), ..Default::default() }), None);
    }
}
