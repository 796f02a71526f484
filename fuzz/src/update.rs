//! Two documents, one after the other: a stored document, and what an oplog entry would make of it. And the
//! order of whatever `_id` they have.

use bson::RawDocument;
use stillpoint_fold::key::Key;
use stillpoint_fold::update::{MAX_LENGTH, apply};

pub fn check(data: &[u8]) {
    let mut documents = stillpoint_oplog::split(data).map_while(Result::ok);
    let documents =
        [documents.next(), documents.next()].map(|bytes| bytes.and_then(|bytes| RawDocument::from_bytes(bytes).ok()));
    let keys = documents.map(|document| document.and_then(|document| Key::of_document(document).ok()));
    let [Some(pre), Some(o)] = documents else { return };
    keyed(pre);
    let post = apply(pre, o);
    assert_eq!(post, apply(pre, o), "applied twice");
    let Ok(post) = post else { return };
    assert!(post.as_bytes().len() <= MAX_LENGTH);
    assert!(RawDocument::from_bytes(post.as_bytes()).is_ok());
    if let ([Some(before), _], Ok(after)) = (&keys, Key::of_document(&post)) {
        assert_eq!(*before, after, "another _id");
    }
    keyed(&post);
    // What was made can be replaced by itself.
    if Key::of_document(&post).is_ok() {
        assert_eq!(apply(&post, &post), Ok(post));
    }
}

/// The order of keys is one: of any three fields of a document, as if they were `_id`s.
fn keyed(document: &RawDocument) {
    let mut keys: Vec<Key> = Vec::new();
    for field in document.iter_elements().take(8) {
        let Some(value) = field.ok().and_then(|field| field.value().ok()) else { break };
        keys.extend(Key::of(value));
    }
    for (left, right) in keys.iter().flat_map(|left| keys.iter().map(move |right| (left, right))) {
        assert_eq!(left.cmp(right), left.as_bytes().cmp(right.as_bytes()));
        let beginning = left != right && right.as_bytes().starts_with(left.as_bytes());
        assert!(!beginning, "{left:?} is the beginning of {right:?}");
    }
}
