//! `networking.istio.io`: the routing part of VirtualService, and the subsets of DestinationRule.

pub mod destination_rule;
pub mod virtual_service;

pub use destination_rule::DestinationRule;
pub use virtual_service::VirtualService;
