//! What the fold makes of a snapshot and a stream is what the server itself says of the time: on real shards and
//! config servers, for whatever may be done to them.
//!
//! `CASES=n` runs so many workloads, `SEED=n` that one.

use std::collections::BTreeSet;

use rand::Rng;
use secrecy::SecretString;
use stillpoint_lab::{Lab, ReplicaSet};
use stillpoint_mongo::{ClusterLink, PartLink};

mod live;
mod mutations;
mod part;
mod workload;

use live::{Difference, entries, live};
use part::Snapshot;
use workload::{Workload, lab};

const CASES: u64 = 60;
/// So many more, if something was not done in these.
const MORE: u64 = 60;
/// So many are done on one cluster, which keeps something of each: thousands of them take no more of memory and
/// of the disk than these.
const ON_ONE: u64 = 100;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

struct Cluster {
    lab: Lab,
    links: Vec<PartLink>,
}

impl Cluster {
    async fn start() -> Cluster {
        let lab = lab().await;
        let links = ClusterLink::connect(&SecretString::from(lab.uri())).await.unwrap().parts().await.unwrap();
        Cluster { lab, links }
    }

    fn set(&self, at: usize) -> &ReplicaSet {
        if at < self.lab.shards().len() { self.lab.shard(at) } else { self.lab.config() }
    }

    /// Takes a snapshot of every part while a workload goes on, then compares at several times.
    async fn case(&self, seed: u64, wanted: Vec<&'static str>, unseen: &mut BTreeSet<&'static str>) -> workload::Done {
        let mut workload = Workload::new(&self.lab, seed, wanted);
        let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(!seed);
        for _ in 0..25 {
            workload.step().await;
        }
        let mut snapshots = Vec::new();
        for link in &self.links {
            snapshots.push(Snapshot::begin(link).await);
            workload.step().await;
        }
        // What is prepared now is open in the snapshots; a read at a later time would wait for its end.
        workload.settle().await;
        for (snapshot, link) in snapshots.iter_mut().zip(&self.links) {
            while snapshot.read(link).await {
                if rng.random_bool(0.4) {
                    workload.step().await;
                }
                workload.settle().await;
            }
        }
        for round in 0..3 {
            for _ in 0..12 {
                workload.step().await;
            }
            let cut = live::cut(&self.lab).await;
            let later = live::cut(&self.lab).await;
            workload.settle_as_of(later).await;
            for (at, (snapshot, link)) in snapshots.iter().zip(&self.links).enumerate() {
                assert!(cut >= snapshot.until, "seed {seed}: {cut} is before the snapshot's end");
                let mut live = live(link, cut).await;
                let stream = entries(self.set(at), snapshot.beginning.from).await;
                let folded = snapshot.fold(&stream, cut);
                let mut folded = folded.unwrap_or_else(|e| panic!("seed {seed}, {}: {e}", link.id));
                // A capped collection was read as it is now: one that was written since cannot be compared.
                let written = live.written_since(&stream, cut);
                folded.0.retain(|ns, _| !written.contains(ns));
                live.0.retain(|ns, _| !written.contains(ns));
                let difference = Difference(&folded, &live);
                assert!(folded == live, "seed {seed}, round {round}, {}, {cut}:\n{difference}", link.id);
                for (name, mutate) in mutations::all() {
                    if unseen.contains(name) {
                        let (mut snapshot, mut stream) = (snapshot.clone(), stream.clone());
                        mutate(&mut snapshot, &mut stream, cut);
                        let folded = snapshot.fold(&stream, cut);
                        let is_seen = folded.map_or(true, |mut folded| {
                            folded.0.retain(|ns, _| !written.contains(ns));
                            folded != live
                        });
                        if is_seen {
                            unseen.remove(name);
                        }
                    }
                }
            }
        }
        workload.end().await
    }
}

#[tokio::test]
async fn the_fold_is_what_the_server_says() {
    let mut cluster = None;
    let (first, cases) = (setting("SEED"), setting("CASES").unwrap_or(CASES));
    let mut seeds = first.map_or(0..cases + MORE, |seed| seed..seed + 1);
    let (mut run, mut done) = (0, workload::Done::new());
    let mut unseen: BTreeSet<_> = mutations::all().into_iter().map(|(name, _)| name).collect();
    let missing = |done: &workload::Done| Workload::kinds().filter(|kind| !done.contains_key(kind)).collect::<Vec<_>>();
    let mut wanted = Vec::new();
    // What chance has left out is sought for in some more.
    while run < cases || !wanted.is_empty() || !unseen.is_empty() {
        let Some(seed) = seeds.next() else { break };
        if run % ON_ONE == 0 {
            // The one before ends first.
            drop(cluster.take());
        }
        let cluster = match &cluster {
            Some(cluster) => cluster,
            None => cluster.insert(Cluster::start().await),
        };
        for (kind, times) in cluster.case(seed, wanted, &mut unseen).await {
            *done.entry(kind).or_insert(0) += times;
        }
        run += 1;
        wanted = if run < cases { Vec::new() } else { missing(&done) };
    }
    println!("{run} workloads: {done:?}");
    if first.is_none() {
        assert!(missing(&done).is_empty(), "never done: {:?}", missing(&done));
        assert!(unseen.is_empty(), "makes no difference: {unseen:?}");
    }
}
