//! `stillpoint export`

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use stillpoint_engine::snapshots::dump::{Contents, Dump};
use stillpoint_engine::snapshots::export::{Exported, Exporter};
use stillpoint_engine::snapshots::owners::{Owned, Owner};
use stillpoint_engine::snapshots::state::State;
use stillpoint_engine::snapshots::{SnapshotError, blocking};
use stillpoint_fold::Collection;

use super::point::{Fresh, Only, Point, without};
use crate::cli::PointArgs;
use crate::config::Config;
use crate::context::audited;
use crate::error::CliError;
use crate::output::{Output, table};

/// An archive is written in pieces of so many bytes.
const BUFFER: usize = 1 << 20;

/// What is to be written.
pub struct Wanted {
    pub point: PointArgs,
    pub parts: Vec<String>,
    pub only: Vec<String>,
    pub with_orphans: bool,
}

pub async fn run(
    config: &Config,
    output: &Output,
    wanted: Wanted,
    out: Option<PathBuf>,
    archive: Option<PathBuf>,
) -> Result<(), CliError> {
    match (out, archive) {
        (Some(out), _) => files(config, output, wanted, &out).await,
        (None, Some(file)) => self::archive(config, output, wanted, &file).await,
        // The grammar asks for one of them.
        (None, None) => Err(CliError::Usage("name a folder with --out, or an archive with --archive".into())),
    }
}

async fn files(config: &Config, output: &Output, wanted: Wanted, out: &Path) -> Result<(), CliError> {
    let Wanted { point: args, parts, only, with_orphans } = wanted;
    let only = Only::new(only);
    let point = Point::open(config, &args, &parts).await?;
    let ownerships = point.ownerships(with_orphans).await?;
    let fresh = Fresh::folder(out)?;
    let mut rows = Vec::new();
    for (part, base) in &point.parts {
        let source = point.archive.source(part, base, point.time).await?;
        let (folder, only, time) = (fresh.path.join(part.name()), only.clone(), point.time);
        let owner = Owner::new(part.clone(), ownerships.clone());
        let row = blocking(move || {
            let mut owned = Owned::new(Exporter::new(folder), owner);
            source.at(time)?.into(&mut owned, &|_, collection| only.wants(&collection.ns))?;
            let (exporter, orphans) = owned.finish();
            Ok(Row { exported: exporter.exported(), orphans })
        })
        .await?;
        say(part.name(), row);
        rows.push((part.name().to_owned(), row));
    }
    only.check()?;
    fresh.end()?;
    audited(&*point.catalog, format!("export {} of {} to {}", point.time, point.cluster.name, out.display())).await;
    print(output, &point, ("out", out), &rows);
    Ok(())
}

async fn archive(config: &Config, output: &Output, wanted: Wanted, file: &Path) -> Result<(), CliError> {
    let Wanted { point: args, parts, only, with_orphans } = wanted;
    if parts.len() != 1 {
        return Err(CliError::Usage("an archive is of one part: name one --part, and call again for others".into()));
    }
    let to_standard_output = file == Path::new("-");
    if to_standard_output && output.json {
        return Err(CliError::Usage("the archive is on standard output: --json has no place there".into()));
    }
    if to_standard_output && io::stdout().is_terminal() {
        return Err(CliError::Usage(
            "an archive is not for a terminal: send it into a file (--archive FILE) or a program (| mongorestore --archive)"
                .into(),
        ));
    }
    let point = Point::open(config, &args, &parts).await?;
    let Some((part, base)) = point.parts.first() else {
        return Err(CliError::Failed(format!("{} has no part {:?}", point.cluster.name, parts[0])));
    };
    let owner = Owner::new(part.clone(), point.ownerships(with_orphans).await?);
    let only = Only::new(only);
    let wants = only.clone();
    let wanted = move |collection: &Collection| wants.wants(&collection.ns);
    let time = point.time;
    let source = point.archive.source(part, base, time).await?;
    let contents = {
        let wanted = wanted.clone();
        blocking(move || Contents::of(source.at(time)?, &wanted)).await?
    };
    only.check()?;
    let source = point.archive.source(part, base, time).await?;
    let row = if to_standard_output {
        let write = move || {
            let state = source.at(time)?;
            let (_, row) = dump(io::stdout().lock(), "standard output", &contents, state, owner, &wanted)?;
            Ok(row)
        };
        blocking(write).await?
    } else {
        let (fresh, out) = Fresh::file(file)?;
        let name = fresh.path.display().to_string();
        let write = move || {
            let (out, row) = dump(out, &name, &contents, source.at(time)?, owner, &wanted)?;
            out.sync_all().map_err(|why| SnapshotError::Output { path: name, why })?;
            Ok(row)
        };
        let row = blocking(write).await?;
        fresh.end()?;
        row
    };
    say(part.name(), row);
    let place = if to_standard_output { "standard output".to_owned() } else { file.display().to_string() };
    audited(&*point.catalog, format!("export {time} of {} to {place}", point.cluster.name)).await;
    if !to_standard_output {
        print(output, &point, ("archive", file), &[(part.name().to_owned(), row)]);
    }
    Ok(())
}

/// Writes an archive, and gives what it was written to back.
fn dump<W: Write>(
    out: W,
    name: &str,
    contents: &Contents,
    state: State,
    owner: Owner,
    wanted: &dyn Fn(&Collection) -> bool,
) -> Result<(W, Row), SnapshotError> {
    let failed = |why| SnapshotError::Output { path: name.to_owned(), why };
    let dump = Dump::begin(BufWriter::with_capacity(BUFFER, out), name.to_owned(), contents)?;
    let mut owned = Owned::new(dump, owner);
    state.into(&mut owned, &|_, one| wanted(one))?;
    let (dump, orphans) = owned.finish();
    let (out, exported) = dump.finish()?;
    let out = out.into_inner().map_err(|why| failed(why.into_error()))?;
    Ok((out, Row { exported, orphans }))
}

/// What was written of a part, and how many documents were not because it did not own them.
#[derive(Clone, Copy)]
struct Row {
    exported: Exported,
    orphans: u64,
}

fn say(part: &str, Row { exported: Exported { documents, collections, .. }, orphans }: Row) {
    eprintln!("{part}: {documents} documents of {collections} collections{}", without(orphans));
}

/// `place` is the name of a field, and where what was written is.
fn print(output: &Output, point: &Point, place: (&str, &Path), rows: &[(String, Row)]) {
    let mut document = json!({"time": point.time.to_string()});
    document[place.0] = json!(place.1);
    document["parts"] = rows
        .iter()
        .map(|(part, Row { exported, orphans })| {
            json!({
                "part": part,
                "collections": exported.collections,
                "documents": exported.documents,
                "bytes": exported.bytes,
                "orphans": orphans,
            })
        })
        .collect::<Value>();
    output.print(&document, || {
        let cells = rows.iter().map(|(part, Row { exported, orphans })| {
            let Exported { collections, documents, bytes } = exported;
            let figures = [collections, documents, bytes, orphans].map(u64::to_string);
            [vec![part.clone()], figures.to_vec()].concat()
        });
        let cells: Vec<_> = cells.collect();
        format!(
            "as of {}\n{}",
            point.time,
            table(&["PART", "COLLECTIONS", "DOCUMENTS", "BYTES", "ORPHANS LEFT OUT"], &cells)
        )
    });
}
