//! `stillpoint export`

use std::path::Path;

use serde_json::json;
use stillpoint_engine::snapshots::blocking;
use stillpoint_engine::snapshots::export::Exporter;

use super::part_name;
use super::point::{Fresh, Point, is_wanted};
use crate::cli::PointArgs;
use crate::config::Config;
use crate::context::audited;
use crate::error::CliError;
use crate::output::{Output, table};

pub async fn run(
    config: &Config,
    output: &Output,
    args: PointArgs,
    parts: Vec<String>,
    only: Vec<String>,
    out: &Path,
) -> Result<(), CliError> {
    let point = Point::open(config, &args, &parts).await?;
    let fresh = Fresh::begin(out)?;
    let mut rows = Vec::new();
    for (part, base) in &point.parts {
        let source = point.archive.source(part, base, point.time).await?;
        let (folder, only, time) = (fresh.folder.join(part_name(part)), only.clone(), point.time);
        let exported = blocking(move || {
            let mut exporter = Exporter::new(folder);
            source.at(time)?.into(&mut exporter, &|collection| is_wanted(&only, &collection.ns))?;
            Ok(exporter.exported())
        })
        .await?;
        eprintln!("{}: {} documents of {} collections", part_name(part), exported.documents, exported.collections);
        rows.push((part_name(part).to_owned(), exported));
    }
    fresh.end()?;
    audited(&*point.catalog, format!("export {} of {} to {}", point.time, point.cluster.name, out.display())).await;
    let document = json!({
        "time": point.time.to_string(),
        "out": out,
        "parts": rows.iter().map(|(part, exported)| json!({
            "part": part,
            "collections": exported.collections,
            "documents": exported.documents,
            "bytes": exported.bytes,
        })).collect::<Vec<_>>(),
    });
    output.print(&document, || {
        let cells = rows.iter().map(|(part, exported)| {
            let figures = [exported.collections, exported.documents, exported.bytes].map(|n| n.to_string());
            [vec![part.clone()], figures.to_vec()].concat()
        });
        let cells: Vec<_> = cells.collect();
        format!("as of {}\n{}", point.time, table(&["PART", "COLLECTIONS", "DOCUMENTS", "BYTES"], &cells))
    });
    Ok(())
}
