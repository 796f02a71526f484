use super::*;

/// Several collections through one writer, a capped one among them.
#[test]
fn a_pack_holds_chunks_of_several_collections() {
    let mut vault = Vault::default();
    let mut writer = Writer::new(3, DEFAULT_PACK).unwrap();
    let mut roots = Vec::new();
    for collection in 0..20_u32 {
        let layout = if collection == 7 { Layout::Insertion } else { Layout::Sorted };
        let mut tree = TreeBuilder::new(layout);
        let mut builder = ChunkBuilder::new(SMALL, layout);
        for id in 0..50 {
            let id = if collection == 7 { 50 - id } else { id };
            let document = document(id, &format!("collection {collection}"));
            if let Some(chunk) = builder.push(&id.to_be_bytes(), &document).unwrap() {
                writer.add(&mut tree, &chunk).unwrap();
            }
        }
        writer.add(&mut tree, &builder.flush().unwrap()).unwrap();
        roots.push(writer.end(tree).unwrap());
    }
    writer.finish();
    assert!(vault.serve(&mut writer));
    assert_eq!(vault.packs.len(), 1);
    for (collection, root) in roots.iter().enumerate() {
        let root = writer.root(root).unwrap();
        let read = vault.read(Some(&root));
        let ids: Vec<u32> = if collection == 7 { (1..=50).rev().collect() } else { (0..50).collect() };
        let said = ids.into_iter().map(|id| document(id, &format!("collection {collection}")));
        assert_eq!(read, said.collect::<Vec<_>>(), "collection {collection}");
        let (found, _) = vault.walk(Walk::lookup(Some(&root), &7_u32.to_be_bytes()));
        // Where there is no order, it can be in any chunk.
        assert_eq!(found.len(), if collection == 7 { vault.all(Some(&root)).len() } else { 1 });
    }
}
