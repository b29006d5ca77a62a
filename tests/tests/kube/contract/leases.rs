//! Leases: however many race, one has it.

use anyhow::{Result, ensure};
use kube::api::{DynamicObject, PostParams};
use serde_json::json;
use tokio::task::JoinSet;

use crate::place::{Place, refused};
use ambit_tests::cluster::kinds::LEASES;

const RACERS: usize = 8;

fn held_by(lease: &DynamicObject, holder: usize) -> DynamicObject {
    let mut lease = lease.clone();
    lease.data["spec"] = json!({
        "holderIdentity": format!("racer-{holder}"), "leaseDurationSeconds": 15,
        "renewTime": "2026-01-01T00:00:00.000000Z",
    });
    lease
}

pub(crate) async fn one_of_many_wins(place: &Place) -> Result<()> {
    let mut lease = place.create(LEASES, json!({"metadata": {"name": "l"}, "spec": {}})).await?;
    for round in 0..5 {
        let mut racing = JoinSet::new();
        for racer in 0..RACERS {
            let (api, wanted) = (place.api(LEASES), held_by(&lease, round * RACERS + racer));
            racing.spawn(async move { api.replace("l", &PostParams::default(), &wanted).await });
        }
        let mut winners = Vec::new();
        for outcome in racing.join_all().await {
            match outcome {
                Ok(lease) => winners.push(lease),
                Err(error) => drop(refused::<()>(Err(error), 409, "Conflict")?),
            }
        }
        ensure!(winners.len() == 1, "round {round}: {} have it", winners.len());
        let now = place.api(LEASES).get("l").await?;
        ensure!(now.data["spec"]["holderIdentity"] == winners[0].data["spec"]["holderIdentity"]);
        lease = now;
    }
    // Who names no revision gets nothing.
    let mut blind = held_by(&lease, 0);
    blind.metadata.resource_version = None;
    refused(place.api(LEASES).replace("l", &PostParams::default(), &blind).await, 422, "Invalid")?;
    Ok(())
}

pub(crate) async fn one_of_many_makes_it(place: &Place) -> Result<()> {
    let empty = LEASES.object(json!({"metadata": {"name": "l"}}))?;
    let mut racing = JoinSet::new();
    for racer in 0..RACERS {
        let (api, wanted) = (place.api(LEASES), held_by(&empty, racer));
        racing.spawn(async move { api.create(&PostParams::default(), &wanted).await });
    }
    let outcomes = racing.join_all().await;
    let (made, failed): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    ensure!(made.len() == 1, "{} have made it", made.len());
    for outcome in failed {
        refused(outcome, 409, "AlreadyExists")?;
    }
    Ok(())
}
