//! Where scenarios take place: three namespaces of this run's own, with pods that serve and pods that
//! make the load.
//!
//! `crowd` holds a server Deployment and a client for each identity. `witness` holds one server that is
//! enrolled from the beginning, and `outside` one client that never is: by these two it is seen whether
//! the crowd's pods are in the mesh.

mod manifests;
mod ready;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use http::Method;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service, ServiceAccount};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use crate::clock::Clock;
use crate::mesh;
use crate::reach::{self, Member, Want};
use crate::run::Settings;

/// How much there is of everything.
#[derive(Clone, Debug, Args)]
pub(crate) struct Size {
    /// Pods in the namespace that is enrolled: servers, and one client for each identity.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=5000))]
    pub(crate) pods: u32,
    /// ServiceAccounts that they are spread over.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=500))]
    pub(crate) identities: u32,
    /// Requests of all clients together, half on new connections and half on kept ones.
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) requests_per_second: u32,
    /// Connections of all clients together that stay open, each with an octet in 100 ms.
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub(crate) connections: u32,
    /// Milliseconds that a request may take, its connection included.
    #[arg(long, default_value_t = 3000, value_name = "MS", value_parser = clap::value_parser!(u64).range(100..=30_000))]
    pub(crate) timeout_ms: u64,
    /// Seconds until all pods have to be ready at first.
    #[arg(long, default_value_t = 600, value_name = "S")]
    pub(crate) ready_within: u64,
}

impl Size {
    /// Servers of an identity; what does not divide goes to the first ones.
    fn servers(&self, identity: u32) -> u32 {
        let servers = self.pods.saturating_sub(self.identities);
        servers / self.identities + u32::from(identity < servers % self.identities)
    }
}

/// The three namespaces and what is in them.
pub(crate) struct Stage {
    pub(crate) client: Client,
    pub(crate) clock: Clock,
    pub(crate) crowd: String,
    witness_namespace: String,
    outside_namespace: String,
    image: String,
    pub(crate) size: Size,
    /// The pods that make the load.
    pub(crate) clients: Vec<Member>,
    /// A server in the mesh.
    witness: Option<Member>,
    /// A client outside of it.
    outside: Option<Member>,
    pub(crate) is_enrolled: bool,
}

impl Stage {
    /// Only names; nothing exists yet.
    pub(crate) fn new(client: Client, settings: &Settings) -> Self {
        let run: u16 = rand::random();
        let prefix = format!("ambit-bench-{run:04x}");
        Self {
            client,
            clock: Clock::start(),
            crowd: format!("{prefix}-crowd"),
            witness_namespace: format!("{prefix}-witness"),
            outside_namespace: format!("{prefix}-outside"),
            image: settings.image.clone(),
            size: settings.size.clone(),
            clients: Vec::new(),
            witness: None,
            outside: None,
            is_enrolled: false,
        }
    }

    pub(crate) fn namespaces(&self) -> [&str; 3] {
        [&self.crowd, &self.witness_namespace, &self.outside_namespace]
    }

    /// Creates everything and waits until it is ready.
    ///
    /// # Errors
    /// When the API server refuses, or when pods do not become ready.
    pub(crate) async fn set(&mut self, has_mesh: bool) -> Result<()> {
        ensure!(
            self.size.identities < self.size.pods,
            "{} pods are too few for a client and a server of some of {} identities",
            self.size.pods,
            self.size.identities
        );
        eprintln!("cluster: {} pods in {}", self.size.pods, self.crowd);
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        for name in self.namespaces() {
            let is_enrolled = has_mesh && name == self.witness_namespace;
            create(&namespaces, manifests::namespace(name, is_enrolled)).await?;
        }
        self.furnish_crowd().await?;
        self.create_in(&self.witness_namespace, manifests::server("witness", "default", &self.image, 1))
            .await?;
        let outside = manifests::client("outside", "default", &self.image, &[]);
        self.create_in(&self.outside_namespace, outside).await?;
        if has_mesh {
            for namespace in [&self.crowd, &self.witness_namespace] {
                mesh::guard(&self.client, namespace).await?;
            }
        }
        let within = Duration::from_secs(self.size.ready_within);
        for namespace in self.namespaces() {
            ready::deployments(&self.client, namespace, within).await?;
        }
        self.find_pods().await?;
        if has_mesh { self.prove_guard().await } else { Ok(()) }
    }

    async fn furnish_crowd(&self) -> Result<()> {
        let crowd = &self.crowd;
        let mut targets = Vec::new();
        for identity in 0..self.size.identities {
            let account: ServiceAccount = manifests::account(identity)?;
            create(&Api::namespaced(self.client.clone(), crowd), account).await?;
            if self.size.servers(identity) == 0 {
                continue;
            }
            let name = manifests::server_name(identity);
            let services: Api<Service> = Api::namespaced(self.client.clone(), crowd);
            let service = create(&services, manifests::service(&name)?).await?;
            let address =
                service.spec.and_then(|spec| spec.cluster_ip).context("a Service without address")?;
            targets.push(address);
            let account = manifests::account_name(identity);
            let server = manifests::server(&name, &account, &self.image, self.size.servers(identity));
            self.create_in(crowd, server).await?;
        }
        for identity in 0..self.size.identities {
            // Each begins with another Service, so that kept connections are to all of them.
            let turn = identity as usize % targets.len().max(1);
            let targets = [&targets[turn..], &targets[..turn]].concat();
            let load = manifests::Load { size: &self.size, identity, targets: &targets };
            let name = manifests::client_name(identity);
            let account = manifests::account_name(identity);
            self.create_in(crowd, manifests::client(&name, &account, &self.image, &load.arguments())).await?;
        }
        Ok(())
    }

    async fn create_in(&self, namespace: &str, deployment: Result<Deployment>) -> Result<()> {
        create(&Api::namespaced(self.client.clone(), namespace), deployment?).await.map(drop)
    }

    async fn find_pods(&mut self) -> Result<()> {
        self.clients = self.members(&self.crowd, "role=client").await?;
        self.witness = self.members(&self.witness_namespace, "role=server").await?.pop();
        self.outside = self.members(&self.outside_namespace, "role=client").await?.pop();
        ensure!(self.clients.len() == self.size.identities as usize, "some client pods are missing");
        Ok(())
    }

    /// The pods with a label that run.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub(crate) async fn members(&self, namespace: &str, selector: &str) -> Result<Vec<Member>> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let list = pods.list(&ListParams::default().labels(selector)).await?;
        let mut members: Vec<Member> = list
            .items
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .filter_map(member)
            .collect();
        members.sort();
        Ok(members)
    }

    /// All pods of the crowd.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub(crate) async fn everybody(&self) -> Result<Vec<Member>> {
        self.members(&self.crowd, manifests::OURS).await
    }

    pub(crate) fn witness(&self) -> Result<&Member> {
        self.witness.as_ref().context("the witness has not been started")
    }

    pub(crate) fn outside(&self) -> Result<&Member> {
        self.outside.as_ref().context("the client outside has not been started")
    }

    /// Insists that the witness answers nobody without an identity: otherwise its answers prove nothing.
    async fn prove_guard(&self) -> Result<()> {
        let outside = self.outside()?;
        reach::probe(&self.client, outside, &[self.witness()?.guarded()], Want::Refusal).await?;
        let end = Instant::now() + PROOF;
        while Instant::now() < end {
            if reach::probed(&self.client, outside).await?.iter().all(|probed| probed.held_us.is_some()) {
                return Ok(());
            }
            sleep(Duration::from_millis(500)).await;
        }
        bail!(
            "the enrolled pod {}/{} still answers a client without an identity on a port where an \
             AuthorizationPolicy forbids that: is Ambit working on node {}?",
            self.witness()?.namespace,
            self.witness()?.name,
            self.witness()?.node
        )
    }

    /// Adds the label that enrols the crowd, or takes it away.
    ///
    /// # Errors
    /// When the API server refuses.
    pub(crate) async fn label(&mut self, is_enrolled: bool) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let patch = Patch::Merge(manifests::enrolment(is_enrolled));
        namespaces.patch(&self.crowd, &PatchParams::default(), &patch).await?;
        self.is_enrolled = is_enrolled;
        Ok(())
    }

    /// Has all clients open their connections anew: those of before an operation may stay outside of the mesh, or go
    /// around a waypoint, and what follows is measured on new ones.
    ///
    /// # Errors
    /// When one does not answer.
    pub(crate) async fn reconnect(&self) -> Result<()> {
        for client in &self.clients {
            reach::ask(&self.client, client, Method::POST, "/reconnect").await?;
        }
        Ok(())
    }

    /// Starts one more server, under a new ServiceAccount, and waits until it runs.
    ///
    /// # Errors
    /// When it does not become ready.
    pub(crate) async fn newcomer(&self, name: &str) -> Result<Member> {
        let account: ServiceAccount = manifests::named_account(name)?;
        create(&Api::namespaced(self.client.clone(), &self.crowd), account).await?;
        self.create_in(&self.crowd, manifests::server(name, name, &self.image, 1)).await?;
        ready::deployments(&self.client, &self.crowd, NEWCOMER).await?;
        let found = self.members(&self.crowd, &format!("app={name}")).await?.pop();
        found.context("the new pod has no address")
    }

    /// Waits until all pods of the crowd are ready again.
    ///
    /// # Errors
    /// When they do not become ready.
    pub(crate) async fn whole(&self) -> Result<()> {
        ready::deployments(&self.client, &self.crowd, Duration::from_secs(self.size.ready_within)).await
    }

    /// Takes everything away.
    ///
    /// # Errors
    /// When the API server refuses. What is still terminating at the end is only told.
    pub(crate) async fn remove(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        for name in self.namespaces() {
            match namespaces.delete(name, &DeleteParams::background()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error).with_context(|| format!("{name} cannot be deleted")),
            }
        }
        let end = Instant::now() + REMOVAL;
        for name in self.namespaces() {
            while namespaces.get_opt(name).await?.is_some() {
                if Instant::now() >= end {
                    eprintln!("cluster: {name} is still terminating");
                    break;
                }
                sleep(Duration::from_secs(1)).await;
            }
        }
        Ok(())
    }
}

/// Until the guard of a namespace that is already enrolled has to be in force.
const PROOF: Duration = Duration::from_secs(60);
/// Until one more pod has to run.
const NEWCOMER: Duration = Duration::from_secs(120);
/// Until the namespaces should be gone.
const REMOVAL: Duration = Duration::from_secs(180);

fn member(pod: &Pod) -> Option<Member> {
    Some(Member {
        namespace: pod.metadata.namespace.clone()?,
        name: pod.metadata.name.clone()?,
        address: pod.status.as_ref()?.pod_ip.clone()?,
        node: pod.spec.as_ref()?.node_name.clone()?,
    })
}

async fn create<K>(api: &Api<K>, object: K) -> Result<K>
where
    K: Clone + std::fmt::Debug + Serialize + DeserializeOwned + Resource,
{
    let name = object.meta().name.clone().unwrap_or_default();
    api.create(&PostParams::default(), &object).await.with_context(|| format!("{name} cannot be created"))
}
