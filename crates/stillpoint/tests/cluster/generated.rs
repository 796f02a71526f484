//! Whatever was done to a cluster, restored as of a time it is what the cluster itself said of that time: what the
//! fold's oracle asks of the fold, asked of the server as it is shipped, with the same workloads.
//!
//! `RESTORES=n` times are gone back to, each with workloads of its own; `SEED=n` repeats those of one.

#[path = "../../../fold/tests/oracle/live.rs"]
mod live;
#[path = "../../../fold/tests/oracle/workload.rs"]
mod workload;

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use secrecy::SecretString;
use serde_json::Value;
use stillpoint_core::ClusterTime;
use stillpoint_lab::Lab;
use stillpoint_lab::routing::Routing;
use stillpoint_lab::snapshot::ReadAt;
use stillpoint_lab::wire::Gossip;
use stillpoint_mongo::{ClusterLink, PartLink};

use crate::captured::{parts, server_of, until_stored};
use crate::restore::{restore_to, routing};
use crate::snapshots::{ask, complete};
use crate::support::{SOON, Server, timestamp};
use live::{Difference, State, cut, entries, live};
use workload::{Done, SHARDED, Workload};

const RESTORES: u64 = 4;
/// For each of them so many workloads are there, with a time in the middle of each.
const WORKLOADS: u64 = 3;
/// After so many all kinds were sought for.
const TURNS: u64 = 6;
/// So many are done on one cluster, which keeps something of each.
const ON_ONE: u64 = 16;
const HELD: &str = "transaction that is held";
/// Far fewer suffice to hold a transaction.
const STEPS: usize = 500;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

/// What the clients' databases were at a time, shard by shard, and what the config servers knew of them.
struct Moment {
    time: ClusterTime,
    /// How a restore names the time.
    point: [String; 2],
    shards: Vec<State>,
    routing: BTreeMap<String, Vec<String>>,
    /// Capped collections cannot be read as of a time: those of each shard that were written to meanwhile.
    unknown: Vec<Vec<String>>,
}

/// Without what is the servers' own.
async fn read(link: &PartLink, time: ClusterTime) -> State {
    let mut state = live(link, time).await;
    state.0.retain(|ns, _| !["admin", "config", "local"].contains(&ns.split('.').next().unwrap()));
    state
}

async fn links(lab: &Lab) -> Vec<PartLink> {
    ClusterLink::connect(&SecretString::from(lab.uri())).await.unwrap().parts().await.unwrap()
}

struct Source {
    lab: Lab,
    links: Vec<PartLink>,
    server: Server,
}

impl Source {
    async fn start() -> Source {
        let lab = workload::lab().await;
        let links = links(&lab).await;
        let (server, _) = server_of(&lab).await;
        Source { lab, links, server }
    }

    /// A time to go back to.
    async fn point(&self, is_checkpoint: bool) -> (ClusterTime, [String; 2]) {
        if is_checkpoint {
            let record = self.server.complete().await;
            return (record.cut.unwrap(), ["--checkpoint".into(), record.id.to_string()]);
        }
        let time = cut(&self.lab).await;
        (time, ["--at".into(), time.to_string()])
    }

    /// Right after `time`, while its collections are as they were then.
    async fn moment(&self, time: ClusterTime, point: [String; 2], names: &[(&str, &str)]) -> Moment {
        let gossip = self.lab.topology().gossip().await.unwrap();
        let at = ReadAt::Time(timestamp(time));
        let owners = Routing::load_at(&self.lab.topology(), &gossip, SHARDED, at).await.unwrap();
        let (mut shards, mut unknown) = (Vec::new(), Vec::new());
        for (shard, link) in self.lab.shards().iter().zip(&self.links) {
            let mut state = read(link, time).await;
            let written = state.written_since(&entries(shard, time).await, time);
            state.0.retain(|ns, _| !written.contains(ns));
            // What a migration has left behind is no part of the cluster's data.
            state.0.get_mut(SHARDED).unwrap().documents.retain(|document| {
                let id = document.get("_id").unwrap().unwrap().try_into().unwrap();
                owners.owner(&id).unwrap() == shard.name()
            });
            shards.push(state);
            unknown.push(written);
        }
        Moment { time, point, shards, routing: routing(&self.lab, at, &gossip, names).await, unknown }
    }

    /// Some workloads, with times to go back to, and one of these restored.
    async fn case(&self, seed: u64, is_first: bool) -> Done {
        println!("SEED={seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let map = if rng.random() { [("rs0", "new0"), ("rs1", "new1")] } else { [("rs0", "new1"), ("rs1", "new0")] };
        let target = tokio::spawn(Lab::builder().named("new").start());
        let (mut workloads, mut moments) = (Vec::new(), Vec::new());
        for n in 0..WORKLOADS {
            let mut workload = Workload::new(&self.lab, rng.random::<u32>().into(), wanted(seed * WORKLOADS + n));
            steps(&mut workload, 30).await;
            // The first snapshot is read while the workload goes on, later ones are made of it.
            let another = rng.random_bool(0.1);
            if another || is_first && n == 0 {
                let id = ask(&self.server).await;
                let goes_on = async {
                    steps(&mut workload, 30).await;
                    workload.settle().await;
                };
                tokio::join!(complete(&self.server, id), goes_on);
            }
            steps(&mut workload, 30).await;
            workload.settle().await;
            hold(&mut workload).await;
            let (time, point) = self.point(rng.random_bool(0.3)).await;
            let later = cut(&self.lab).await;
            workload.settle_as_of(later).await;
            moments.push(self.moment(time, point, &map).await);
            steps(&mut workload, 20).await;
            workload.settle().await;
            workloads.push(workload);
        }
        for part in parts(&self.lab) {
            until_stored(&self.lab, &self.server, &part, SOON).await;
        }
        let moment = moments.swap_remove(rng.random_range(0..moments.len()));
        let target = target.await.unwrap().unwrap();
        self.restore(seed, &target, &moment.point, &map).await;

        let links = links(&target).await;
        for (n, (expected, unknown)) in moment.shards.iter().zip(&moment.unknown).enumerate() {
            let (from, to) = map[n];
            let link = links.iter().find(|link| link.id.name() == to).unwrap();
            let mut found = read(link, link.committed().await.unwrap()).await;
            found.0.retain(|ns, _| !unknown.contains(ns));
            let difference = Difference(&found, expected);
            assert!(found == *expected, "seed {seed}, {from} at {}:\n{difference}", moment.time);
            // Of another time it would be seen.
            assert!(moments.iter().all(|other| other.shards[n] != found), "seed {seed}: nothing was done to {from}");
        }
        let found = routing(&target, ReadAt::Majority, &Gossip::default(), &[]).await;
        assert_eq!(found, moment.routing, "seed {seed}, {}", moment.time);
        let mut done = Done::new();
        for workload in workloads {
            for (kind, times) in workload.end().await {
                *done.entry(kind).or_insert(0) += times;
            }
        }
        done
    }

    async fn restore(&self, seed: u64, target: &Lab, [named, point]: &[String; 2], map: &[(&str, &str)]) {
        let map: Vec<_> = map.iter().map(|(from, to)| format!("--shard-map={from}={to}")).collect();
        let map: Vec<_> = map.iter().map(String::as_str).collect();
        let ran = restore_to(&self.server, [named, point], &target.restore_uri(), &map).await;
        assert!(ran.status.success(), "seed {seed}, {named} {point}: {}{}", ran.err, ran.out);
        let restored: Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!((&restored["state"], &restored["verdict"]), (&"FINISHED".into(), &"EQUAL".into()), "{restored}");
    }
}

/// All that can be done is sought for in some workload, but for elections, which take long.
fn wanted(workload: u64) -> Vec<&'static str> {
    let kinds = Workload::kinds().filter(|kind| !kind.starts_with("step down"));
    kinds.enumerate().filter(|(at, _)| *at as u64 % TURNS == workload % TURNS).map(|(_, kind)| kind).collect()
}

/// Has a transaction open, over the time that follows.
async fn hold(workload: &mut Workload<'_>) {
    let wanted = std::mem::replace(&mut workload.wanted, vec![HELD]);
    let held = |workload: &Workload<'_>| workload.done.get(HELD).copied();
    let before = held(workload);
    for _ in 0..STEPS {
        workload.step().await;
        if held(workload) > before {
            workload.wanted = wanted;
            return;
        }
    }
    panic!("no transaction is held");
}

async fn steps(workload: &mut Workload<'_>, steps: u32) {
    for _ in 0..steps {
        workload.step().await;
    }
}

#[tokio::test]
async fn whatever_was_done_is_restored_as_the_cluster_itself_says_it_was() {
    let restores = setting("RESTORES").unwrap_or(RESTORES);
    let seeds = setting("SEED").map_or(0..restores, |seed| seed..seed + 1);
    let (mut source, mut done) = (None, Done::new());
    for (n, seed) in (0_u64..).zip(seeds) {
        let is_first = n.is_multiple_of(ON_ONE);
        if is_first {
            // The one before ends first.
            drop(source.take());
        }
        let source = match &source {
            Some(source) => source,
            None => source.insert(Source::start().await),
        };
        for (kind, times) in source.case(seed, is_first).await {
            *done.entry(kind).or_insert(0) += times;
        }
    }
    let never: Vec<_> = Workload::kinds().filter(|kind| !done.contains_key(kind)).collect();
    println!("{done:?}, never {never:?}");
}
