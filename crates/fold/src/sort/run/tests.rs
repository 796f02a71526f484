use super::*;

fn written(key: &Key, records: &[&[u8]]) -> Run {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = RunWriter::new(folder.path(), key).unwrap();
    for record in records {
        writer.push(record).unwrap();
    }
    writer.end().unwrap()
}

fn content(run: &mut Run) -> Vec<u8> {
    let mut bytes = Vec::new();
    run.file.seek(SeekFrom::Start(0)).unwrap();
    run.file.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, run.bytes());
    bytes
}

fn with(bytes: &[u8]) -> Run {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Run { file, bytes: bytes.len() as u64 }
}

fn read(run: Run, key: &Key) -> io::Result<Vec<Vec<u8>>> {
    let mut reader = run.read(key)?;
    let mut all = Vec::new();
    while let Some(record) = reader.next()? {
        all.push(record);
    }
    Ok(all)
}

#[test]
fn records_come_back_as_they_were() {
    let key = Key::new();
    let large = vec![7; 3 * FRAME];
    let records: [&[u8]; 5] = [b"a", &large, &large[..FRAME - 8], b"b", b""];
    assert_eq!(read(written(&key, &records), &key).unwrap(), records);
    assert_eq!(read(written(&key, &[]), &key).unwrap(), Vec::<Vec<u8>>::new());
}

#[test]
fn nothing_of_a_record_is_in_the_clear() {
    let key = Key::new();
    // It cannot be compressed, so that it would be found whole if it were not encrypted.
    let mut secret = vec![0; 64];
    SystemRandom::new().fill(&mut secret).unwrap();
    let bytes = content(&mut written(&key, &[&secret, b"recognisable payload, recognisable payload"]));
    for wanted in [&secret[..], &secret[..8], b"recognisable"] {
        assert!(!bytes.windows(wanted.len()).any(|window| window == wanted));
    }
    // Nor is it merely compressed.
    assert!(zstd::bulk::decompress(&bytes[24..], FRAME).is_err());
    // The same again is other bytes: no nonce is used twice.
    let again = content(&mut written(&key, &[&secret, b"recognisable payload, recognisable payload"]));
    assert_ne!(bytes[24..], again[24..]);
}

#[test]
fn another_key_opens_nothing() {
    let run = written(&Key::new(), &[b"a"]);
    assert_eq!(read(run, &Key::new()).unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn a_file_that_has_changed_is_an_error() {
    let key = Key::new();
    let bytes = content(&mut written(&key, &[b"one", b"two"]));
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let error = read(with(&changed), &key).unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof), "{at}: {error}");
    }
    for length in 1..bytes.len() {
        assert!(read(with(&bytes[..length]), &key).is_err(), "{length}");
    }
}
