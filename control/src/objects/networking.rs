//! `networking.istio.io`: the routing part of VirtualService, the subsets of DestinationRule, and ServiceEntry.

pub mod destination_rule;
pub mod duration;
pub mod service_entry;
pub mod virtual_service;

pub use destination_rule::DestinationRule;
pub use service_entry::ServiceEntry;
pub use virtual_service::VirtualService;

/// Whether an object of namespace `own` that is exported to these namespaces counts in namespace `to`.
///
/// Istio: nothing is everything, `.` is the object's own namespace and `*` is every one.
pub fn is_exported(export_to: &[String], own: &str, to: &str) -> bool {
    let counts = |one: &String| match one.as_str() {
        "*" => true,
        "." => own == to,
        namespace => namespace == to,
    };
    export_to.is_empty() || export_to.iter().any(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_counts_where_it_is_exported_to() {
        for (export_to, to, expected) in [
            (&[][..], "bank", true),
            (&["*"], "bank", true),
            (&["."], "shop", true),
            (&["."], "bank", false),
            (&["bank", "."], "bank", true),
            (&["bank"], "shop", false),
            (&["~"], "shop", false),
        ] {
            let export_to: Vec<String> = export_to.iter().map(ToString::to_string).collect();
            assert_eq!(is_exported(&export_to, "shop", to), expected, "{export_to:?} {to}");
        }
    }
}
