//! Writing a manifest.

use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

use super::format::document;
use super::{FORMAT, MAGIC, MAX_MANIFEST, Manifest, ManifestError, rules};
use crate::writer::DEFAULT_LEVEL;

impl Manifest {
    /// The file; refused if it could not be read.
    pub fn write(&self) -> Result<Vec<u8>, ManifestError> {
        rules::check(self)?;
        let too_long = |length| ManifestError::Length { length, limit: MAX_MANIFEST };
        // Before it is put together: the definitions are most of it.
        let least = self.collections.iter().map(|collection| collection.definition.len()).sum::<usize>();
        let document = if least <= MAX_MANIFEST { document(self) } else { None };
        let document = document.ok_or(too_long(least))?;
        if document.len() > MAX_MANIFEST {
            return Err(too_long(document.len()));
        }
        let compress = || {
            let mut compressor = Compressor::new(DEFAULT_LEVEL)?;
            compressor.set_parameter(CParameter::ContentSizeFlag(true))?;
            compressor.set_parameter(CParameter::ChecksumFlag(true))?;
            compressor.compress(&document)
        };
        let frame = compress().map_err(|why| ManifestError::Frame(why.to_string()))?;
        let length = (document.len() as u32).to_le_bytes();
        Ok([&MAGIC[..], &FORMAT.to_le_bytes(), &length, &frame].concat())
    }
}
