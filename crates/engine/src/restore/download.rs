//! Into files that are downloaded: an archive of each part, compressed with gzip.
//!
//! A file is filled beside its place, and put there when it is on the disk; only then the record says that it is
//! ready. So a process that is killed makes those again that the record does not have, and what it left half-written
//! is overwritten. No link is given before all are ready.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bson::raw::RawDocument;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use ring::digest::{Context, SHA256};
use stillpoint_core::checkpoint::PartId;
use stillpoint_core::restore::{Amount, File as Ready, Point, Restore, State};
use stillpoint_core::snapshot::Data;
use stillpoint_core::{ClusterTime, RestoreId};
use stillpoint_fold::{Collection, Uuid};
use stillpoint_snapshot::manifest;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::load::Progress;
use super::{NOTE_EVERY, RestoreError, Run, nothing_under_way, plan};
use crate::snapshots::dump::{Contents, Dump};
use crate::snapshots::owners::{self, Owned, Owner};
use crate::snapshots::room::free;
use crate::snapshots::state::{Sink, Source};
use crate::snapshots::{Archive, SnapshotError, blocking};

/// What a file is called while it is filled: with this behind its name.
pub const PARTIAL: &str = ".partial";
const BUFFER: usize = 1 << 20;
/// What is to be left of the disk, in bytes.
const SPARE: u64 = 256 << 20;

/// A part whose file is to be made.
struct Step {
    part: PartId,
    job: RestoreId,
    base: Data,
    name: String,
    progress: Arc<Progress>,
}

impl Run {
    /// Makes every file that is not ready, and ends the restore.
    pub(super) async fn prepare(&self, restore: &mut Restore, stop: &CancellationToken) -> Result<(), RestoreError> {
        if restore.state == State::Queued {
            restore.state = State::Checking;
            self.save(restore, &[]).await?;
        }
        let archive = self.archive(restore, stop).await?;
        let folder = self.setup.restores.downloads.clone();
        make_folder(&folder).map_err(|why| unusable(&folder, why))?;
        let mut steps = Vec::new();
        for part in &mut restore.parts {
            if !is_there(&folder, part.job, part.file.as_ref()) {
                part.file = None;
                forget(&places(&folder, part.job).1);
                let base = plan::base(&archive, &part.id, restore.time)?;
                let name = told_name(&self.connection.cluster.name, &part.id, restore.time);
                let progress = Arc::new(Progress::default());
                steps.push(Step { part: part.id.clone(), job: part.job, base, name, progress });
            }
        }
        room(&folder, steps.iter().map(|step| step.base.bytes).sum())?;
        (restore.state, restore.trouble) = (State::Loading, None);
        self.save(restore, &[]).await?;
        self.setup.done("download-begun");
        self.make_all(restore, &archive, &folder, &steps, stop).await?;
        tracing::info!(cluster = %self.lease.cluster, restore = %restore.id, time = %restore.time, "restore: its files are ready");
        self.end(restore, State::Finished, None).await
    }

    async fn make_all(
        &self,
        restore: &mut Restore,
        archive: &Archive,
        folder: &Path,
        steps: &[Step],
        stop: &CancellationToken,
    ) -> Result<(), RestoreError> {
        let (time, permits) = (restore.time, Semaphore::new(self.setup.snapshots.parts_at_once));
        let looking = async {
            if !matches!(restore.point, Point::Checkpoint(_)) {
                let parts = steps.iter().map(|step| (&step.part, &step.base));
                nothing_under_way(archive, parts, time).await?;
            }
            owners::at(archive, time).await.map_err(stopped)
        };
        let ownerships = Arc::new(self.watching(restore, stop, looking).await?);
        let making = steps.iter().map(|step| {
            let (permits, owner) = (&permits, Owner::new(step.part.clone(), ownerships.clone()));
            async move {
                let _permit = permits.acquire().await;
                (step, make(archive, folder, step, owner, time, stop).await)
            }
        });
        let mut making: FuturesUnordered<_> = making.collect();
        let mut failed = None::<RestoreError>;
        loop {
            let noted = tokio::select! {
                made = making.next() => match made {
                    None => break,
                    Some((step, Ok(file))) => {
                        if let Some(part) = restore.parts.iter_mut().find(|part| part.job == step.job) {
                            part.file = Some(file);
                        }
                        self.note_files(restore, steps).await.inspect(|()| self.setup.done("file-ready"))
                    }
                    Some((_, Err(why))) => Err(why),
                },
                // Whatever failed, what is still being made ends by itself: it must not go on behind our back.
                () = sleep(NOTE_EVERY), if failed.is_none() => self.note_files(restore, steps).await,
            };
            if let Err(why) = noted {
                stop.cancel();
                if failed.as_ref().is_none_or(|first| matches!(first, RestoreError::Stopped)) {
                    failed = Some(why);
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Notes how far all files are, and learns whether somebody ends it.
    async fn note_files(&self, restore: &mut Restore, steps: &[Step]) -> Result<(), RestoreError> {
        if self.is_cancelled(restore).await? {
            return Err(RestoreError::Killed);
        }
        let progress: BTreeMap<_, _> = steps.iter().map(|step| (step.job, &step.progress)).collect();
        for part in &mut restore.parts {
            if let Some(its) = progress.get(&part.job) {
                (part.written, part.doing) = (its.amount(), its.doing());
            }
        }
        self.save(restore, &[]).await
    }
}

/// Deletes what there is of a restore's files.
pub(super) fn discard(folder: &Path, restore: &Restore) {
    for part in &restore.parts {
        let (place, partial) = places(folder, part.job);
        forget(&place);
        forget(&partial);
    }
}

/// Deletes a file; whether it was there.
pub(crate) fn delete(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(why) if why.kind() == ErrorKind::NotFound => Ok(false),
        Err(why) => Err(why),
    }
}

/// Deletes a file, if that can be.
fn forget(path: &Path) {
    if let Err(why) = delete(path) {
        // Another look is taken from time to time.
        tracing::warn!(path = %path.display(), error = %why, "restore: a file could not be deleted");
    }
}

/// Where a job's file is, and where it is filled.
fn places(folder: &Path, job: RestoreId) -> (PathBuf, PathBuf) {
    let name = Ready::stored_as(job);
    (folder.join(&name), folder.join(format!("{name}{PARTIAL}")))
}

/// Only who runs the server may look into it.
fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mode = fs::metadata(folder)?.permissions().mode() & 0o777;
    match mode & 0o077 {
        0 => Ok(()),
        _ => Err(io::Error::other(format!("others may look into it (mode {mode:03o}): run `chmod 700` on it"))),
    }
}

fn is_there(folder: &Path, job: RestoreId, file: Option<&Ready>) -> bool {
    file.is_some_and(|file| fs::metadata(places(folder, job).0).is_ok_and(|found| found.len() == file.bytes))
}

/// Documents may be such as cannot be compressed; and the disk may be the catalog's, too.
fn room(folder: &Path, needed: u64) -> Result<(), RestoreError> {
    let free = free(folder).map_err(|why| unusable(folder, why))?;
    let needed = needed.saturating_add(SPARE);
    match free < needed {
        true => Err(RestoreError::NoRoom { folder: folder.display().to_string(), needed, free }),
        false => Ok(()),
    }
}

fn unusable(path: &Path, why: io::Error) -> RestoreError {
    RestoreError::Downloads { path: path.display().to_string(), why }
}

/// What whoever downloads it sees: which cluster's, which part's, as of when.
fn told_name(cluster: &str, part: &PartId, time: ClusterTime) -> String {
    let plain = |text: &str| {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        text.chars().map(plain).collect::<String>()
    };
    format!("{}-{}-{}-{}.archive.gz", plain(cluster), plain(part.name()), time.seconds, time.increment)
}

async fn make(
    archive: &Archive,
    folder: &Path,
    step: &Step,
    owner: Owner,
    time: ClusterTime,
    stop: &CancellationToken,
) -> Result<Ready, RestoreError> {
    if stop.is_cancelled() {
        return Err(RestoreError::Stopped);
    }
    step.progress.begin("following the stored oplog");
    // What there is to say of every collection comes before the first document.
    let source = archive.source(&step.part, &step.base, time).await?;
    let contents = blocking(move || Contents::of(source.at(time)?, &|_| true)).await.map_err(stopped)?;
    let source = archive.source(&step.part, &step.base, time).await?;
    let (place, partial) = places(folder, step.job);
    let (name, progress, stop) = (step.name.clone(), step.progress.clone(), stop.clone());
    let folder = folder.to_owned();
    let made = blocking(move || {
        let made = write(source, time, owner, &contents, &partial, &progress).and_then(|made| {
            let failed = |why| SnapshotError::Output { path: partial.display().to_string(), why };
            if stop.is_cancelled() {
                return Err(SnapshotError::Stopped);
            }
            let placed = fs::rename(&partial, &place).and_then(|()| File::open(&folder)?.sync_all());
            placed.map(|()| made).map_err(failed)
        });
        // A disk that is full is perhaps the catalog's, too.
        made.inspect_err(|_| forget(&partial)).map(|(bytes, sha256)| Ready { name, bytes, sha256, gone: None })
    });
    let made = made.await.map_err(stopped)?;
    step.progress.end();
    Ok(made)
}

fn stopped(why: SnapshotError) -> RestoreError {
    match why {
        SnapshotError::Stopped => RestoreError::Stopped,
        why => why.into(),
    }
}

/// The size and the hash of what was written.
fn write(
    source: Source,
    time: ClusterTime,
    owner: Owner,
    contents: &Contents,
    path: &Path,
    progress: &Progress,
) -> Result<(u64, String), SnapshotError> {
    let name = path.display().to_string();
    let failed = |why| SnapshotError::Output { path: name.clone(), why };
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    let measured = Measured { file, bytes: 0, hash: Context::new(&SHA256) };
    // It is made while somebody waits, and read once.
    let packed = GzEncoder::new(BufWriter::with_capacity(BUFFER, measured), Compression::fast());
    let dump = Dump::begin(BufWriter::with_capacity(BUFFER, packed), name.clone(), contents)?;
    let state = source.at(time)?;
    let mut owned = Owned::new(Counted { dump, progress }, owner);
    state.into(&mut owned, &|_, _| true)?;
    let (counted, orphans) = owned.finish();
    tracing::info!(file = name, orphans, "restore: a file is written");
    let (out, _) = counted.dump.finish()?;
    let packed = out.into_inner().map_err(|why| failed(why.into_error()))?;
    let out = packed.finish().map_err(failed)?;
    let Measured { file, bytes, hash } = out.into_inner().map_err(|why| failed(why.into_error()))?;
    file.sync_all().map_err(failed)?;
    Ok((bytes, hex::encode(hash.finish())))
}

/// A file whose size and hash are known when it is written.
struct Measured {
    file: File,
    bytes: u64,
    hash: Context,
}

impl Write for Measured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Tells how far it is.
struct Counted<'a, W> {
    dump: Dump<W>,
    progress: &'a Progress,
}

impl<W: Write> Sink for Counted<'_, W> {
    fn begin(
        &mut self,
        uuid: Uuid,
        collection: &Collection,
        stored: Option<&manifest::Collection>,
    ) -> Result<(), SnapshotError> {
        self.progress.begin(collection.ns.clone());
        self.dump.begin(uuid, collection, stored)
    }

    fn document(&mut self, key: &[u8], document: &RawDocument) -> Result<(), SnapshotError> {
        self.dump.document(key, document)?;
        self.progress.add(Amount { collections: 0, documents: 1, bytes: document.as_bytes().len() as u64 });
        Ok(())
    }

    fn end(&mut self) -> Result<(), SnapshotError> {
        self.dump.end()?;
        self.progress.add(Amount { collections: 1, ..Amount::default() });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
