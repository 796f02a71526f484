//! What the lengths and the level of compression were chosen by.

use super::*;

/// About 600 bytes, of the kind that applications store.
fn order(n: u32) -> Vec<u8> {
    let mut state = u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5151;
    let mut any = |most: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % most
    };
    let words =
        ["blue", "large", "table", "lamp", "oak", "steel", "cover", "left", "right", "kit", "set", "mat", "ring"];
    let items: Vec<bson::Document> = (0..2 + any(3))
        .map(|_| {
            let name: Vec<&str> = (0..3).map(|_| words[any(13) as usize]).collect();
            doc! {"sku": format!("SKU-{:06}", any(100_000)), "name": name.join(" "), "quantity": any(9) as i32, "price": any(99_999) as f64 / 100.0}
        })
        .collect();
    let token: Vec<u8> = (0..16).map(|_| any(256) as u8).collect();
    doc! {
        "_id": bson::oid::ObjectId::from_bytes([0x65, 0x53, (n >> 24) as u8, (n >> 16) as u8, 1, 2, 3, 4, 5, (n >> 8) as u8, n as u8, any(256) as u8]),
        "customer": {"id": any(1_000_000) as i64, "email": format!("user{}@example.com", any(1_000_000)), "city": words[any(13) as usize]},
        "status": (["new", "paid", "sent", "done"][any(4) as usize]),
        "created": bson::DateTime::from_millis(1_700_000_000_000 + i64::from(n) * 977 + any(900) as i64),
        "items": items,
        "total": any(999_999) as f64 / 100.0,
        "token": hex::encode(token),
        "notes": (0..12).map(|_| words[any(13) as usize]).collect::<Vec<_>>().join(" "),
    }
    .to_vec()
    .unwrap()
}

/// The seconds that this thread has had: others may be at work on the machine.
fn seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

#[test]
#[ignore = "measures; to be built with --release"]
fn measure() {
    let documents: Vec<([u8; 4], Vec<u8>)> = (0..200_000_u32).map(|n| (n.to_be_bytes(), order(n))).collect();
    let bytes: usize = documents.iter().map(|(_, document)| document.len()).sum();
    println!("{} documents of {} bytes", documents.len(), bytes / documents.len());
    if let Ok(path) = std::env::var("RAW") {
        let all: Vec<u8> = documents.iter().flat_map(|(_, document)| document.iter().copied()).collect();
        std::fs::write(path, all).unwrap();
    }
    let rate = |began: f64| bytes as f64 / (seconds() - began) / 1e6;
    let began = seconds();
    let digest: Digest = documents.iter().map(|(_, document)| Digest::of(document)).sum();
    println!("digest alone: {:.0} MB/s of {} documents", rate(began), digest.documents);
    for bits in [8, 9, 10] {
        for level in [1, 3, 5, 6] {
            let (mut packs, mut stored, mut nodes, mut lengths) = (0, 0, 0, Vec::new());
            let began = seconds();
            let mut writer = Writer::new(level, DEFAULT_PACK).unwrap();
            let mut tree = TreeBuilder::new(Layout::Sorted);
            let mut builder = ChunkBuilder::new(Cut::new(bits).unwrap(), Layout::Sorted);
            let mut take = |writer: &mut Writer| {
                while let Next::Store(Sealed { number, bytes }) = writer.advance().unwrap() {
                    (packs, stored) = (packs + 1, stored + bytes.len());
                    nodes += PackReader::open(bytes.into(), pack::Limits::default())
                        .unwrap()
                        .items()
                        .filter(|(_, node)| *node)
                        .count();
                    let mut id = [0; 32];
                    id[..8].copy_from_slice(&number.to_le_bytes());
                    writer.stored(number, BlobId(id)).unwrap();
                }
            };
            for (key, document) in &documents {
                if let Some(chunk) = builder.push(key, document).unwrap() {
                    lengths.push(chunk.documents.len());
                    writer.add(&mut tree, &chunk).unwrap();
                    take(&mut writer);
                }
            }
            if let Some(chunk) = builder.flush() {
                lengths.push(chunk.documents.len());
                writer.add(&mut tree, &chunk).unwrap();
            }
            let root = writer.end(tree);
            writer.finish();
            take(&mut writer);
            let rate = rate(began);
            assert!(root.is_some());
            lengths.sort_unstable();
            let part = |n: usize| lengths[(lengths.len() - 1) * n / 100] >> 10;
            println!(
                "bits {bits:2} level {level}: {rate:4.0} MB/s, {stored} stored ({:.2} %), {} chunks of {} KiB (1 % {} 10 % {} 50 % {} 90 % {} 99 % {} 100 % {}), {nodes} nodes, {packs} packs",
                stored as f64 * 100.0 / bytes as f64,
                lengths.len(),
                (bytes / lengths.len()) >> 10,
                part(1),
                part(10),
                part(50),
                part(90),
                part(99),
                part(100),
            );
        }
    }
}
