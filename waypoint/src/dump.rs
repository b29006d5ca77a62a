//! What the waypoint knows, as JSON for `/config_dump`. Holds no secret.

use std::time::SystemTime;

use ambit_identity::manager::CertificateStatus;
use ambit_mesh::http::WaypointSnapshot;
use serde_json::{Value, json};

/// Everything that is decided by, and the state of our certificate.
pub(crate) fn config_dump(snapshot: Option<&WaypointSnapshot>, certificates: &[CertificateStatus]) -> Value {
    let seconds = |time: SystemTime| {
        time.duration_since(SystemTime::UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default()
    };
    let certificates: Vec<Value> = certificates
        .iter()
        .map(|status| {
            let held = status.certificate.as_ref();
            json!({
                "identity": status.id.to_string(),
                "serial": held.map(|held| held.serial.clone()),
                "not_after": held.map(|held| seconds(held.not_after)),
                "last_error": status.last_error,
            })
        })
        .collect();
    let Some(snapshot) = snapshot else {
        return json!({ "synced": false, "certificates": certificates });
    };
    let counts = snapshot.mesh().counts();
    json!({
        "synced": true,
        "gateway": snapshot.myself().gateway.to_string(),
        "workload": snapshot.myself().workload.to_string(),
        "placed": snapshot.own().is_some(),
        "workloads": counts.workloads,
        "services": counts.services,
        "routes": snapshot.routes().map(|route| format!("{:?}", route)).collect::<Vec<_>>(),
        "policies": snapshot.policies().map(|policy| format!("{:?}", policy)).collect::<Vec<_>>(),
        "certificates": certificates,
    })
}
