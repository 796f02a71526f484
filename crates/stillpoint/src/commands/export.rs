//! `stillpoint export`

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use stillpoint_engine::snapshots::dump::{Contents, Dump};
use stillpoint_engine::snapshots::export::{Exported, Exporter};
use stillpoint_engine::snapshots::state::State;
use stillpoint_engine::snapshots::{SnapshotError, blocking};
use stillpoint_fold::Collection;

use super::part_name;
use super::point::{Fresh, Point, is_wanted};
use crate::cli::PointArgs;
use crate::config::Config;
use crate::context::audited;
use crate::error::CliError;
use crate::output::{Output, table};

/// An archive is written in pieces of so many bytes.
const BUFFER: usize = 1 << 20;

pub async fn run(
    config: &Config,
    output: &Output,
    args: PointArgs,
    parts: Vec<String>,
    only: Vec<String>,
    out: Option<PathBuf>,
    archive: Option<PathBuf>,
) -> Result<(), CliError> {
    match (out, archive) {
        (Some(out), _) => files(config, output, args, parts, only, &out).await,
        (None, Some(file)) => self::archive(config, output, args, parts, only, &file).await,
        // The grammar asks for one of them.
        (None, None) => Err(CliError::Usage("name a folder with --out, or an archive with --archive".into())),
    }
}

async fn files(
    config: &Config,
    output: &Output,
    args: PointArgs,
    parts: Vec<String>,
    only: Vec<String>,
    out: &Path,
) -> Result<(), CliError> {
    let point = Point::open(config, &args, &parts).await?;
    let fresh = Fresh::folder(out)?;
    let mut rows = Vec::new();
    for (part, base) in &point.parts {
        let source = point.archive.source(part, base, point.time).await?;
        let (folder, only, time) = (fresh.path.join(part_name(part)), only.clone(), point.time);
        let exported = blocking(move || {
            let mut exporter = Exporter::new(folder);
            source.at(time)?.into(&mut exporter, &|_, collection| is_wanted(&only, &collection.ns))?;
            Ok(exporter.exported())
        })
        .await?;
        say(part_name(part), exported);
        rows.push((part_name(part).to_owned(), exported));
    }
    fresh.end()?;
    audited(&*point.catalog, format!("export {} of {} to {}", point.time, point.cluster.name, out.display())).await;
    print(output, &point, ("out", out), &rows);
    Ok(())
}

async fn archive(
    config: &Config,
    output: &Output,
    args: PointArgs,
    parts: Vec<String>,
    only: Vec<String>,
    file: &Path,
) -> Result<(), CliError> {
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
    let wanted = move |collection: &Collection| is_wanted(&only, &collection.ns);
    let time = point.time;
    let source = point.archive.source(part, base, time).await?;
    let contents = {
        let wanted = wanted.clone();
        blocking(move || Contents::of(source.at(time)?, &wanted)).await?
    };
    let source = point.archive.source(part, base, time).await?;
    let exported = if to_standard_output {
        let write = move || {
            let (_, exported) = dump(io::stdout().lock(), "standard output", &contents, source.at(time)?, &wanted)?;
            Ok(exported)
        };
        blocking(write).await?
    } else {
        let (fresh, out) = Fresh::file(file)?;
        let name = fresh.path.display().to_string();
        let write = move || {
            let (out, exported) = dump(out, &name, &contents, source.at(time)?, &wanted)?;
            out.sync_all().map_err(|why| SnapshotError::Output { path: name, why })?;
            Ok(exported)
        };
        let exported = blocking(write).await?;
        fresh.end()?;
        exported
    };
    say(part_name(part), exported);
    let place = if to_standard_output { "standard output".to_owned() } else { file.display().to_string() };
    audited(&*point.catalog, format!("export {time} of {} to {place}", point.cluster.name)).await;
    if !to_standard_output {
        print(output, &point, ("archive", file), &[(part_name(part).to_owned(), exported)]);
    }
    Ok(())
}

/// Writes an archive, and gives what it was written to back.
fn dump<W: Write>(
    out: W,
    name: &str,
    contents: &Contents,
    state: State,
    wanted: &dyn Fn(&Collection) -> bool,
) -> Result<(W, Exported), SnapshotError> {
    let failed = |why| SnapshotError::Output { path: name.to_owned(), why };
    let mut dump = Dump::begin(BufWriter::with_capacity(BUFFER, out), name.to_owned(), contents)?;
    state.into(&mut dump, &|_, one| wanted(one))?;
    let (out, exported) = dump.finish()?;
    let out = out.into_inner().map_err(|why| failed(why.into_error()))?;
    Ok((out, exported))
}

fn say(part: &str, exported: Exported) {
    eprintln!("{part}: {} documents of {} collections", exported.documents, exported.collections);
}

/// `place` is the name of a field, and where what was written is.
fn print(output: &Output, point: &Point, place: (&str, &Path), rows: &[(String, Exported)]) {
    let mut document = json!({"time": point.time.to_string()});
    document[place.0] = json!(place.1);
    document["parts"] = rows
        .iter()
        .map(|(part, exported)| {
            json!({
                "part": part,
                "collections": exported.collections,
                "documents": exported.documents,
                "bytes": exported.bytes,
            })
        })
        .collect::<Value>();
    output.print(&document, || {
        let cells = rows.iter().map(|(part, exported)| {
            let figures = [exported.collections, exported.documents, exported.bytes].map(|n| n.to_string());
            [vec![part.clone()], figures.to_vec()].concat()
        });
        let cells: Vec<_> = cells.collect();
        format!("as of {}\n{}", point.time, table(&["PART", "COLLECTIONS", "DOCUMENTS", "BYTES"], &cells))
    });
}
