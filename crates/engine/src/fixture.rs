//! For tests: a catalog with one cluster, its lease, and a vault, in a folder that ends with it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use stillpoint_catalog::sqlite::SqliteCatalog;
use stillpoint_catalog::{Catalog, Cluster, Lease, Project};
use stillpoint_core::{ClusterId, ProjectId};
use stillpoint_vault::{Options, Vault};
use tempfile::TempDir;

pub struct Fixture {
    pub folder: TempDir,
    pub catalog: Arc<dyn Catalog>,
    pub vault: Vault,
    pub cluster: Cluster,
    pub lease: Lease,
}

impl Fixture {
    /// All of it made at `now`.
    pub async fn new(now: Timestamp) -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let catalog: Arc<dyn Catalog> =
            Arc::new(SqliteCatalog::open_with_key_file(&path("catalog"), &path("key")).unwrap());
        let options = Options::new(format!("file:{}", path("vault").display()));
        let vault = Vault::create_or_open(&options, catalog.id().await.unwrap(), now, 1).await.unwrap();
        let organization = catalog.organizations().await.unwrap()[0].id;
        let project = Project { id: ProjectId::new(now, 1), organization, name: "p".into(), created: now };
        catalog.create_project(&project).await.unwrap();
        let cluster = Cluster {
            id: ClusterId::new(now, 1),
            project: project.id,
            name: "Cluster0".into(),
            identity: "identity".into(),
            uri: "mongodb://nowhere".into(),
            created: now,
        };
        catalog.add_cluster(&cluster).await.unwrap();
        let lease = catalog.claim_lease(cluster.id, "here", now, Duration::from_secs(60)).await.unwrap().unwrap();
        Fixture { folder, catalog, vault, cluster, lease }
    }
}
