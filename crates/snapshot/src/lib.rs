//! What a stored snapshot is made of: chunks of documents, packs of chunks, and the tree that names them.
//!
//! Bytes in, values out: no I/O, no async, no clock. Nothing here trusts what it reads: whatever the
//! bytes are, the answer is a value or an error that says where, and never a panic.
