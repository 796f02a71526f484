//! Reading a manifest, from any bytes whatever.

use zstd::bulk::Decompressor;
use zstd::zstd_safe::{find_frame_compressed_size, get_frame_content_size};

use super::{FORMAT, MAGIC, MAX_MANIFEST, Manifest, format, rules};
use crate::pack::FRAME;

/// The magic bytes, the version, the length.
const PRELUDE: usize = 16;

/// Why bytes are no manifest, or a manifest cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("this is no manifest: it does not begin as one")]
    NoManifest,
    #[error("this manifest is of format {0}, and this program reads format {FORMAT} only")]
    Format(u32),
    #[error("the manifest ends after {length} bytes, in its beginning")]
    Short { length: usize },
    #[error("the manifest is {length} bytes long before compression, and the limit is {limit}")]
    Length { length: usize, limit: usize },
    #[error("the manifest's frame: {0}")]
    Frame(String),
    #[error("the manifest's {0} is missing or is not what it must be")]
    Field(&'static str),
    #[error("the manifest contradicts itself: {0}")]
    Contradiction(&'static str),
    #[error("collection {collection} of the manifest, counted from 0: {what}")]
    Collection { collection: usize, what: &'static str },
}

impl Manifest {
    /// `limit` is how long it may be before compression, at most [`MAX_MANIFEST`].
    pub fn read(bytes: &[u8], limit: usize) -> Result<Manifest, ManifestError> {
        let short = ManifestError::Short { length: bytes.len() };
        if bytes.get(..MAGIC.len()) != Some(&MAGIC) {
            return Err(ManifestError::NoManifest);
        }
        let number = |at: usize| bytes.get(at..)?.first_chunk().map(|number| u32::from_le_bytes(*number));
        match number(MAGIC.len()).ok_or_else(|| short.clone())? {
            FORMAT => {}
            other => return Err(ManifestError::Format(other)),
        }
        let length = number(MAGIC.len() + 4).ok_or_else(|| short.clone())? as usize;
        let limit = limit.min(MAX_MANIFEST);
        if length > limit {
            return Err(ManifestError::Length { length, limit });
        }
        let frame = bytes.get(PRELUDE..).ok_or(short)?;
        let fault = |what: String| ManifestError::Frame(what);
        // By its first bytes, too: zstd would also take formats from before its first version.
        if !frame.starts_with(&FRAME) || find_frame_compressed_size(frame) != Ok(frame.len()) {
            return Err(fault("it is not one zstd frame".into()));
        }
        if !matches!(get_frame_content_size(frame), Ok(Some(said)) if said == length as u64) {
            return Err(fault(format!("it does not say that it is {length} bytes long")));
        }
        let document = Decompressor::new().and_then(|mut decompressor| decompressor.decompress(frame, length));
        let document = document.map_err(|why| fault(why.to_string()))?;
        if document.len() != length {
            return Err(fault(format!("it is {} bytes long, and not {length}", document.len())));
        }
        Manifest::read_document(&document)
    }

    /// Reads what is in the frame, one BSON document.
    pub fn read_document(document: &[u8]) -> Result<Manifest, ManifestError> {
        let manifest = format::manifest(document)?;
        rules::check(&manifest)?;
        Ok(manifest)
    }
}
