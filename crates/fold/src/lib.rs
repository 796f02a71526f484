//! state(T) = fold(snapshot, stream, T): what a part's data was at a time, without a MongoDB server.
//!
//! Bytes in, values out, exact to the byte. Nothing here trusts what it reads: whatever the bytes are, the
//! answer is a value or an error that says where, and never a panic.
