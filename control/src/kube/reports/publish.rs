//! Keeps this replica's report written.

use std::sync::Arc;
use std::time::Duration;

use ambit_xds::resources::Resources;
use ambit_xds::server::Subscribers;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::heard::RENEW_EVERY;
use super::observe::Observer;
use super::report::{ProxyReport, ProxyReportSpec};
use crate::kube::{FIELD_MANAGER, Replica};

/// Proxies answer by the hundred: what they say within this time is written together.
const TOGETHER: Duration = Duration::from_secs(1);

/// The longest pause after failures: shorter than a report counts for.
const RETRY_AFTER_MOST: Duration = Duration::from_secs(30);

/// How long one request may take.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// Writes the report whenever it changes, and often enough that it counts, until control has nothing
/// more to serve.
pub async fn run(
    client: Client,
    replica: &Replica,
    mut resources: watch::Receiver<Arc<Resources>>,
    subscribers: Subscribers,
) {
    let reports: Api<ProxyReport> = Api::namespaced(client, &replica.namespace);
    let mut observer = Observer::default();
    let mut progress = subscribers.progress();
    let mut written: Option<(ProxyReportSpec, Instant)> = None;
    let mut failures = 0u32;
    loop {
        progress.mark_unchanged();
        let serving = resources.borrow_and_update().clone();
        let report = observer.observe(&serving, &subscribers).report;
        let sent = Instant::now();
        let is_current = |(before, at): &(ProxyReportSpec, Instant)| {
            *before == report && sent.duration_since(*at) < RENEW_EVERY
        };
        if !written.as_ref().is_some_and(is_current) {
            if write(&reports, replica, &report, failures).await {
                (written, failures) = (Some((report, sent)), 0);
            } else {
                (written, failures) = (None, failures + 1);
            }
        }
        sleep_until(sent + pause(failures)).await;
        let Some((_, at)) = &written else { continue };
        tokio::select! {
            changed = resources.changed() => if changed.is_err() {
                return;
            },
            // The registry lives as long as we hold it, so this never fails.
            _ = progress.changed() => {}
            () = sleep_until(*at + RENEW_EVERY) => {}
        }
    }
}

/// Takes this replica's report away: its proxies are about to leave.
pub async fn withdraw(client: Client, replica: &Replica) {
    let reports: Api<ProxyReport> = Api::namespaced(client, &replica.namespace);
    let parameters = DeleteParams::default();
    // What is not deleted ceases to count by itself.
    match timeout(REQUEST_DEADLINE, reports.delete(&replica.name, &parameters)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "our ProxyReport was not deleted"),
        Err(_) => tracing::debug!("our ProxyReport was not deleted in time"),
    }
}

fn pause(failures: u32) -> Duration {
    (TOGETHER * 2u32.pow(failures.min(5))).min(RETRY_AFTER_MOST)
}

async fn write(
    reports: &Api<ProxyReport>,
    replica: &Replica,
    report: &ProxyReportSpec,
    failures: u32,
) -> bool {
    let renew_time = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut object = ProxyReport::new(&replica.name, ProxyReportSpec { renew_time, ..report.clone() });
    object.metadata.labels = Some([("app.kubernetes.io/part-of".to_owned(), "ambit".to_owned())].into());
    object.metadata.owner_references = replica.uid.as_deref().map(|uid| vec![owner(replica, uid)]);
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let patch = Patch::Apply(&object);
    let problem = match timeout(REQUEST_DEADLINE, reports.patch(&replica.name, &parameters, &patch)).await {
        Ok(Ok(_)) => return true,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer in time".to_owned(),
    };
    // Once is enough to say so.
    if failures == 0 {
        let error = problem;
        tracing::warn!(
            report = replica.name,
            error,
            "cannot write our ProxyReport: check that its CRD is installed, and our Role"
        );
    }
    false
}

/// With the pod the report goes.
fn owner(replica: &Replica, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: replica.name.clone(),
        uid: uid.to_owned(),
        controller: None,
        block_owner_deletion: None,
    }
}
