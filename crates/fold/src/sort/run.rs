//! A run of sorted records in a temporary file that has no name: it is gone with its handle, or the process.
//!
//! Frames, each of three numbers (its length, that of its records, its nonce) and the compressed, encrypted
//! records. The key is made by chance and never leaves memory: what a crash leaves on the
//! disk cannot be read.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

#[cfg(test)]
mod tests;

/// A frame is closed when it is as long as this.
const FRAME: usize = 256 << 10;
const LEVEL: i32 = 1;

/// One for all runs of a sorter.
#[derive(Debug, Clone)]
pub(super) struct Key {
    key: Arc<LessSafeKey>,
    /// No nonce is used twice.
    used: Arc<std::sync::atomic::AtomicU64>,
}

impl Key {
    pub fn new() -> Key {
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).expect("the system's random numbers");
        let key = UnboundKey::new(&AES_256_GCM, &bytes).expect("a key of the cipher's length");
        Key { key: Arc::new(LessSafeKey::new(key)), used: Arc::default() }
    }

    fn nonce(&self) -> u64 {
        self.used.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

#[derive(Debug)]
pub(super) struct Run {
    file: File,
    bytes: u64,
}

pub(super) struct RunWriter {
    file: BufWriter<File>,
    key: Key,
    raw: Vec<u8>,
    bytes: u64,
}

impl RunWriter {
    pub fn new(folder: &Path, key: &Key) -> io::Result<RunWriter> {
        let file = BufWriter::new(tempfile::tempfile_in(folder)?);
        Ok(RunWriter { file, key: key.clone(), raw: Vec::new(), bytes: 0 })
    }

    pub fn push(&mut self, record: &[u8]) -> io::Result<()> {
        self.raw.extend_from_slice(&(record.len() as u32).to_le_bytes());
        self.raw.extend_from_slice(record);
        if self.raw.len() >= FRAME { self.frame() } else { Ok(()) }
    }

    fn frame(&mut self) -> io::Result<()> {
        let mut sealed = zstd::bulk::compress(&self.raw, LEVEL)?;
        let number = self.key.nonce();
        let raw = Aad::from((self.raw.len() as u64).to_le_bytes());
        self.key
            .key
            .seal_in_place_append_tag(nonce(number), raw, &mut sealed)
            .map_err(|_| io::Error::other("a frame cannot be encrypted"))?;
        for head in [sealed.len() as u64, self.raw.len() as u64, number] {
            self.file.write_all(&head.to_le_bytes())?;
        }
        self.file.write_all(&sealed)?;
        self.bytes += (24 + sealed.len()) as u64;
        self.raw.clear();
        Ok(())
    }

    pub fn end(mut self) -> io::Result<Run> {
        if !self.raw.is_empty() {
            self.frame()?;
        }
        let file = self.file.into_inner().map_err(|e| e.into_error())?;
        Ok(Run { file, bytes: self.bytes })
    }
}

impl Run {
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn read(mut self, key: &Key) -> io::Result<RunReader> {
        self.file.seek(SeekFrom::Start(0))?;
        Ok(RunReader { file: BufReader::new(self.file), key: key.clone(), left: self.bytes, raw: Vec::new(), at: 0 })
    }
}

#[derive(Debug)]
pub(super) struct RunReader {
    file: BufReader<File>,
    key: Key,
    left: u64,
    raw: Vec<u8>,
    at: usize,
}

impl RunReader {
    pub fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.at == self.raw.len() {
            if self.left == 0 {
                return Ok(None);
            }
            self.frame()?;
        }
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "a temporary file has changed");
        let rest = &self.raw[self.at..];
        let (length, rest) = rest.split_first_chunk().ok_or_else(damaged)?;
        let record = rest.get(..u32::from_le_bytes(*length) as usize).ok_or_else(damaged)?;
        self.at += 4 + record.len();
        Ok(Some(record.to_vec()))
    }

    fn frame(&mut self) -> io::Result<()> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "a temporary file has changed");
        let mut heads = [[0; 8]; 3];
        for head in &mut heads {
            self.file.read_exact(head)?;
        }
        let [sealed, raw, number] = heads.map(u64::from_le_bytes);
        self.left = self.left.checked_sub(24).and_then(|left| left.checked_sub(sealed)).ok_or_else(damaged)?;
        let mut bytes = vec![0; sealed as usize];
        self.file.read_exact(&mut bytes)?;
        let opened = self
            .key
            .key
            .open_in_place(nonce(number), Aad::from(raw.to_le_bytes()), &mut bytes)
            .map_err(|_| damaged())?;
        self.raw = zstd::bulk::decompress(opened, raw as usize)?;
        self.at = 0;
        Ok(())
    }
}
